//! Hours of the week at which a machine is lent. Pure; local wall time is handed in.

use std::str::FromStr;

const DAY: u32 = 24 * 60;
const WEEK: u32 = 7 * DAY;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A moment of the week on the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// Minutes since Monday 0:00.
    minute: u32,
}

impl LocalTime {
    /// Of a moment in milliseconds since the Unix epoch, where clocks are so many seconds ahead of UTC.
    pub fn at(wall_ms: u64, offset_s: i32) -> Self {
        let seconds = i64::try_from(wall_ms / 1000).unwrap_or(0) + i64::from(offset_s);
        // The epoch was a Thursday.
        let minutes = seconds.div_euclid(60) + i64::from(3 * DAY);
        Self { minute: u32::try_from(minutes.rem_euclid(i64::from(WEEK))).unwrap_or(0) }
    }

    /// Of a day (0 is Monday) and a time of day in minutes.
    #[cfg(test)]
    fn on(day: u32, minute: u32) -> Self {
        Self { minute: (day * DAY + minute) % WEEK }
    }
}

/// Spans of the week; together they are all the hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// (first minute of the week, length in minutes)
    spans: Vec<(u32, u32)>,
    /// As they were written.
    written: Vec<String>,
}

/// Why words are no hours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} are no hours; write \"19:00-08:00\", \"Sat,Sun\", \"Mon-Fri 19:00-08:00\", or a list of such: [\"19:00-08:00\", \"Sat,Sun\"]"
)]
pub struct BadHours {
    given: String,
}

impl Hours {
    /// Of one text or several; at least one.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, BadHours> {
        let mut hours = Self { spans: Vec::new(), written: Vec::new() };
        for text in texts {
            let spans = spans(text).ok_or_else(|| BadHours { given: text.chars().take(80).collect() })?;
            hours.spans.extend(spans);
            hours.written.push(text.trim().to_owned());
        }
        if hours.spans.is_empty() { Err(BadHours { given: String::new() }) } else { Ok(hours) }
    }

    pub fn contain(&self, at: LocalTime) -> bool {
        self.spans.iter().any(|(start, length)| (at.minute + WEEK - start) % WEEK < *length)
    }

    /// As they were written.
    pub fn written(&self) -> &[String] {
        &self.written
    }
}

impl FromStr for Hours {
    type Err = BadHours;

    fn from_str(text: &str) -> Result<Self, BadHours> {
        Self::of([text])
    }
}

/// `DAYS`, `FROM-TO`, or `DAYS FROM-TO`. A span that ends before it begins goes on into the next day.
fn spans(text: &str) -> Option<Vec<(u32, u32)>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (listed, times) = match words.as_slice() {
        [one] if one.contains(':') => ((0..7).collect(), *one),
        [one] => (days(one)?, "00:00-24:00"),
        [listed, times] => (days(listed)?, *times),
        _ => return None,
    };
    let (from, to) = times.split_once('-')?;
    let (from, to) = (time(from)?, time(to)?);
    if from == DAY || from == to {
        return None;
    }
    let length = if to > from { to - from } else { to + DAY - from };
    Some(listed.into_iter().map(|day| (day * DAY + from, length)).collect())
}

/// `Mon,Wed` or `Mon-Fri`, or both.
fn days(text: &str) -> Option<Vec<u32>> {
    let day = |name: &str| {
        let name = name.to_ascii_lowercase();
        let at = DAYS.iter().position(|day| name == *day)?;
        u32::try_from(at).ok()
    };
    let mut listed = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (day(first)?, day(last)?);
                listed.extend((0..=(last + 7 - first) % 7).map(|n| (first + n) % 7));
            }
            None => listed.push(day(part)?),
        }
    }
    Some(listed)
}

/// `8:00` to `24:00`, in minutes.
fn time(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    if !digits(hour, 2) || minute.len() != 2 || !digits(minute, 2) {
        return None;
    }
    let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
    let total = hour * 60 + minute;
    (minute < 60 && total <= DAY).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MON: u32 = 0;
    const FRI: u32 = 4;
    const SAT: u32 = 5;
    const SUN: u32 = 6;

    fn hours(texts: &[&str]) -> Hours {
        Hours::of(texts.iter().copied()).unwrap()
    }

    fn at(day: u32, hour: u32, minute: u32) -> LocalTime {
        LocalTime::on(day, hour * 60 + minute)
    }

    #[test]
    fn a_night_goes_on_into_the_morning() {
        let nights = hours(&["19:00-08:00"]);
        for (time, open) in
            [(at(MON, 19, 0), true), (at(MON, 18, 59), false), (at(MON, 7, 59), true), (at(SUN, 8, 0), false)]
        {
            assert_eq!(nights.contain(time), open, "{time:?}");
        }
        // The night belongs to the day on which it begins, over the end of the week too.
        let weekend = hours(&["Fri-Sun 22:00-06:00"]);
        for (time, open) in [
            (at(FRI, 5, 0), false),
            (at(FRI, 23, 0), true),
            (at(SAT, 5, 0), true),
            (at(MON, 5, 59), true),
            (at(MON, 6, 0), false),
        ] {
            assert_eq!(weekend.contain(time), open, "{time:?}");
        }
    }

    #[test]
    fn days_alone_are_whole_and_lists_add_up() {
        let both = hours(&["19:00-24:00", "Sat,Sun"]);
        assert!(both.contain(at(SAT, 0, 0)) && both.contain(at(SUN, 23, 59)) && both.contain(at(MON, 19, 0)));
        assert!(!both.contain(at(MON, 0, 0)) && !both.contain(at(FRI, 18, 59)));
        assert!(hours(&["sat-mon"]).contain(at(MON, 12, 0)));
        assert_eq!(both.written(), ["19:00-24:00", "Sat,Sun"]);
    }

    #[test]
    fn what_is_no_time_is_refused_with_an_example() {
        for bad in [
            "",
            "always",
            "19-08",
            "19:00",
            "25:00-26:00",
            "08:00-08:00",
            "24:00-08:00",
            "Mon 8:0-9:00",
            "Someday",
            "Mon 08:00 - 09:00",
            "+8:00-9:00",
        ] {
            let error = Hours::of([bad]).unwrap_err().to_string();
            assert!(error.contains("19:00-08:00"), "{bad}: {error}");
        }
        assert!(Hours::of([]).is_err());
    }

    #[test]
    fn the_wall_is_local() {
        // 1970-01-01 was a Thursday; 2026-11-25 20:30 UTC is a Wednesday, and in Seoul already Thursday, 5:30.
        let ms = 1_795_638_600_000;
        assert_eq!(LocalTime::at(ms, 0), LocalTime::on(2, 20 * 60 + 30));
        assert_eq!(LocalTime::at(ms, 9 * 3600), LocalTime::on(3, 5 * 60 + 30));
        assert_eq!(LocalTime::at(ms, -5 * 3600), LocalTime::on(2, 15 * 60 + 30));
        assert_eq!(LocalTime::at(0, -3600), LocalTime::on(2, 23 * 60));
    }
}
