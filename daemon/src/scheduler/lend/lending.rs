//! What whoever sits at this machine said of it by hand: lent, or back. Pure.

use std::time::Duration;

/// Longest that what runs for others may go on once its GPU is wanted back.
pub const LONGEST_FINISH: Duration = Duration::from_secs(60);
/// As long as nothing else is configured.
pub const FINISH: Duration = Duration::from_secs(30);

/// What was said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Hand {
    /// Lent, as far as `[lend]` allows.
    #[default]
    Lent,
    /// Back; what is nearly done may finish.
    Back,
    /// Back at once.
    BackNow,
}

/// Said by hand, and until when it holds; then the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Lending {
    pub hand: Hand,
    /// Milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
    pub since_ms: u64,
}

/// Whose the GPU is: what the renderer's machine goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Owner {
    /// Others may have it.
    #[default]
    Away,
    /// It is wanted by whoever sits here; others' work that needs no longer than this may finish.
    Back {
        finish: Duration,
        /// When that was said: saying it again has it done again.
        said_ms: u64,
    },
}

impl Hand {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Lent => "on",
            Self::Back => "off",
            Self::BackNow => "now",
        }
    }
}

impl Lending {
    /// What holds at a moment.
    pub fn at(self, wall_ms: u64) -> Self {
        match self.until_ms {
            Some(until) if until <= wall_ms => Self {
                hand: if self.hand == Hand::Lent { Hand::Back } else { Hand::Lent },
                until_ms: None,
                since_ms: until,
            },
            _ => self,
        }
    }

    pub fn owner(&self, finish: Duration) -> Owner {
        match self.hand {
            Hand::Lent => Owner::Away,
            Hand::Back => Owner::Back { finish: finish.min(LONGEST_FINISH), said_ms: self.since_ms },
            Hand::BackNow => Owner::Back { finish: Duration::ZERO, said_ms: self.since_ms },
        }
    }

    /// As it is kept in a file.
    pub fn write(&self) -> String {
        let until = self.until_ms.map(|until| format!("until_ms = {until}\n")).unwrap_or_default();
        format!(
            "# Written by `scenemesh lend`; remove this file and the machine is lent.\nlend = \"{}\"\n{until}since_ms = {}\n",
            self.hand.word(),
            self.since_ms
        )
    }

    /// As it was kept. `None`: nobody wrote this.
    pub fn read(text: &str) -> Option<Self> {
        let mut lending = Self::default();
        let mut said = false;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line.split_once('=')?;
            let value = value.trim();
            match key.trim() {
                "lend" => {
                    let all = [Hand::Lent, Hand::Back, Hand::BackNow];
                    let word = value.trim_matches('"');
                    lending.hand = all.into_iter().find(|hand| hand.word() == word)?;
                    said = true;
                }
                "until_ms" => lending.until_ms = Some(value.parse().ok()?),
                "since_ms" => lending.since_ms = value.parse().ok()?,
                _ => return None,
            }
        }
        said.then_some(lending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_turns_round_when_its_time_is_over() {
        let away = Lending { hand: Hand::Lent, until_ms: Some(1000), since_ms: 1 };
        assert_eq!(away.at(999), away);
        assert_eq!(away.at(1000), Lending { hand: Hand::Back, until_ms: None, since_ms: 1000 });
        for hand in [Hand::Back, Hand::BackNow] {
            let back = Lending { hand, ..away };
            assert_eq!(back.at(1001).hand, Hand::Lent);
        }
        let for_ever = Lending { hand: Hand::Back, until_ms: None, since_ms: 1 };
        assert_eq!(for_ever.at(u64::MAX), for_ever);
    }

    #[test]
    fn nobody_finishes_for_longer_than_a_minute() {
        let back = |hand, finish| Lending { hand, ..Lending::default() }.owner(Duration::from_secs(finish));
        assert_eq!(back(Hand::Lent, 30), Owner::Away);
        assert_eq!(back(Hand::Back, 30), Owner::Back { finish: Duration::from_secs(30), said_ms: 0 });
        assert_eq!(back(Hand::Back, 600), Owner::Back { finish: LONGEST_FINISH, said_ms: 0 });
        assert_eq!(back(Hand::BackNow, 30), Owner::Back { finish: Duration::ZERO, said_ms: 0 });
    }

    #[test]
    fn what_is_written_is_read() {
        for hand in [Hand::Lent, Hand::Back, Hand::BackNow] {
            for until_ms in [None, Some(7)] {
                let lending = Lending { hand, until_ms, since_ms: 3 };
                assert_eq!(Lending::read(&lending.write()), Some(lending));
            }
        }
        for text in ["", "lend = \"maybe\"", "lend", "lend = \"on\"\nnoon = 3", "until_ms = 3"] {
            assert_eq!(Lending::read(text), None, "{text}");
        }
    }
}
