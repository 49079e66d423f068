//! Some of a job's tasks, as people write it: `3`, `3..7`, `1,4,9..12`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Most parts of one list.
const PARTS: usize = 256;

/// Indexes of a job's tasks, counted from 0 as `show` prints them; both ends of a range are in it. Empty: all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<RangeInclusive<u32>>);

/// What does not read as [`Ranges`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a task's number or range of them: 3, 3..7 or 1,4,9..12")]
pub struct BadRanges;

impl Ranges {
    pub fn has(&self, index: u32) -> bool {
        self.0.is_empty() || self.0.iter().any(|range| range.contains(&index))
    }

    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Splits `ID:RANGES`; without a colon all tasks are meant.
    ///
    /// # Errors
    /// When what follows the colon is nothing, or no list of ranges.
    pub fn split(text: &str) -> Result<(&str, Self), BadRanges> {
        match text.split_once(':') {
            Some((id, ranges)) => Ok((id, ranges.parse()?)),
            None => Ok((text, Self::default())),
        }
    }
}

impl FromStr for Ranges {
    type Err = BadRanges;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| {
            // `+3` would read as a number too.
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u32>().ok().filter(|_| digits).ok_or(BadRanges)
        };
        let part = |part: &str| {
            let (from, to) = part.split_once("..").unwrap_or((part, part));
            let range = number(from)?..=number(to)?;
            if range.is_empty() { Err(BadRanges) } else { Ok(range) }
        };
        if text.split(',').count() > PARTS {
            return Err(BadRanges);
        }
        text.split(',').map(|text| part(text.trim())).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match (range.start(), range.end()) {
                (from, to) if from == to => write!(f, "{comma}{from}")?,
                (from, to) => write!(f, "{comma}{from}..{to}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_people_write_them() {
        for (text, has, lacks) in [
            ("3", vec![3], vec![2, 4]),
            ("3..5", vec![3, 5], vec![2, 6]),
            ("1, 4,9..12", vec![1, 9, 12], vec![5]),
        ] {
            let ranges: Ranges = text.parse().unwrap();
            assert!(has.iter().all(|index| ranges.has(*index)), "{text}");
            assert!(!lacks.iter().any(|index| ranges.has(*index)), "{text}");
            assert_eq!(ranges.to_string().parse(), Ok(ranges));
        }
        for bad in ["", ",", "5..3", "a", "3..", "..3", "-1", "+1", "1..2..3", "99999999999", "3;4"] {
            assert_eq!(bad.parse::<Ranges>(), Err(BadRanges), "{bad:?}");
        }
        assert_eq!(Ranges::split("3fa9"), Ok(("3fa9", Ranges::default())));
        assert_eq!(Ranges::split("3fa9:4"), Ok(("3fa9", "4".parse().unwrap())));
        assert_eq!(Ranges::split("3fa9:"), Err(BadRanges));
        assert!(Ranges::default().has(7) && Ranges::default().is_all());
    }
}
