//! Moments as people write them: `18:30`, `2h`, `2026-11-26 18:30`. Pure; clock and zone are handed in.

const MINUTE_MS: u64 = 60 * 1000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// Further away than this nobody means it.
const FURTHEST_MS: u64 = 366 * DAY_MS;

/// Why words are no moment to come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMoment {
    #[error(
        "{given:?} is no time; write it like 18:30, 2h, 1h30m, \"2026-11-26 18:30\" or 2026-11-26T18:30:00+09:00"
    )]
    Unreadable { given: String },
    #[error("{given:?} is past; give a time to come")]
    Past { given: String },
    #[error("{given:?} is more than a year away; leave the time away where there is no end")]
    TooFar { given: String },
}

/// The moment in milliseconds since the Unix epoch. A time of day is the next one that clocks on the wall here show;
/// a date without a zone is local.
///
/// # Errors
/// When it cannot be read, or is not within the year to come.
pub fn moment(text: &str, now_ms: u64, utc_offset_s: impl Fn(u64) -> i32) -> Result<u64, BadMoment> {
    let given = || text.chars().take(80).collect::<String>();
    let text = text.trim();
    let found = span_ms(text)
        .map(|span| now_ms.saturating_add(span))
        .or_else(|| time_of_day(text, now_ms, &utc_offset_s))
        .or_else(|| date_and_time(text, &utc_offset_s));
    match found {
        None => Err(BadMoment::Unreadable { given: given() }),
        Some(at) if at <= now_ms => Err(BadMoment::Past { given: given() }),
        Some(at) if at - now_ms > FURTHEST_MS => Err(BadMoment::TooFar { given: given() }),
        Some(at) => Ok(at),
    }
}

/// A moment on the wall here: `2026-11-26 18:30`.
pub fn on_the_wall(ms: u64, utc_offset_s: impl Fn(u64) -> i32) -> String {
    let local_s = i64::try_from(ms / 1000).unwrap_or(0) + i64::from(utc_offset_s(ms));
    let (year, month, day) = civil(local_s.div_euclid(86_400));
    let minutes = local_s.rem_euclid(86_400) / 60;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", minutes / 60, minutes % 60)
}

/// `2h`, `+1h30m`, `45 min`.
fn span_ms(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text).trim();
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let (number, more) = rest.split_at(digits);
        let more = more.trim_start();
        let letters = more.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(more.len());
        let (unit, more) = more.split_at(letters);
        let unit_ms = match unit {
            "s" => 1000,
            "m" | "min" => MINUTE_MS,
            "h" => 60 * MINUTE_MS,
            "d" => DAY_MS,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit_ms)?)?;
        rest = more.trim_start();
    }
    (total > 0).then_some(total)
}

/// `18:30` or `18:30:15`, as minutes and seconds of a day.
fn clock(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let mut part = |most: i64, digits: std::ops::RangeInclusive<usize>| {
        let text = parts.next()?;
        let fits = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|value| fits && *value <= most)
    };
    let (hours, minutes) = (part(23, 1..=2)?, part(59, 2..=2)?);
    let seconds = part(59, 2..=2);
    let whole = text.matches(':').count() == if seconds.is_some() { 2 } else { 1 };
    whole.then_some(hours * 3600 + minutes * 60 + seconds.unwrap_or(0))
}

fn time_of_day(text: &str, now_ms: u64, utc_offset_s: &impl Fn(u64) -> i32) -> Option<u64> {
    let wanted = clock(text)?;
    let local_s = i64::try_from(now_ms / 1000).ok()? + i64::from(utc_offset_s(now_ms));
    let today = local_s.div_euclid(86_400);
    (0..=1).map(|day| utc_of((today + day) * 86_400 + wanted, utc_offset_s)).find(|at| *at > now_ms)
}

/// Of seconds on the wall here. Clocks may change between now and then: the offset is that of the moment itself.
fn utc_of(local_s: i64, utc_offset_s: &impl Fn(u64) -> i32) -> u64 {
    let at = |offset: i32| u64::try_from((local_s - i64::from(offset)) * 1000).unwrap_or(0);
    at(utc_offset_s(at(utc_offset_s(at(0)))))
}

fn date_and_time(text: &str, utc_offset_s: &impl Fn(u64) -> i32) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.split('-');
    let mut part = |digits: usize| {
        let text = parts.next().filter(|text| text.len() == digits)?;
        text.parse::<i64>().ok()
    };
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    let days = days(year, month, day);
    if parts.next().is_some() || civil(days) != (year, month, day) {
        return None;
    }
    let (time, zone) = zone(time.trim())?;
    // Fractions of a second are not worth telling.
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let local_s = days * 86_400 + clock(time)?;
    match zone {
        Some(offset) => u64::try_from((local_s - offset) * 1000).ok(),
        None => Some(utc_of(local_s, utc_offset_s)),
    }
}

/// The time before a zone, and how many seconds the zone is ahead of UTC.
fn zone(time: &str) -> Option<(&str, Option<i64>)> {
    if let Some(time) = time.strip_suffix(['Z', 'z']) {
        return Some((time, Some(0)));
    }
    let Some(at) = time.rfind(['+', '-']) else { return Some((time, None)) };
    let ahead = clock(&time[at + 1..])?;
    Some((&time[..at], Some(if time[at..].starts_with('-') { -ahead } else { ahead })))
}

/// Days since the Unix epoch, and back: after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-26 03:00:00 UTC: noon in Seoul.
    const NOW: u64 = 1_795_662_000_000;

    fn seoul(_: u64) -> i32 {
        9 * 3600
    }

    fn read(text: &str) -> Option<String> {
        moment(text, NOW, seoul).ok().map(|at| on_the_wall(at, seoul))
    }

    #[test]
    fn people_write_it_in_many_ways() {
        for (text, shown) in [
            ("18:30", "2026-11-26 18:30"),
            ("9:05", "2026-11-27 09:05"),
            ("12:00", "2026-11-27 12:00"),
            ("2h", "2026-11-26 14:00"),
            ("+1h30m", "2026-11-26 13:30"),
            ("45 min", "2026-11-26 12:45"),
            ("1d", "2026-11-27 12:00"),
            ("2026-11-26 18:30", "2026-11-26 18:30"),
            ("2026-12-31T23:59:30", "2026-12-31 23:59"),
            ("2026-11-26T10:00:00Z", "2026-11-26 19:00"),
            ("2026-11-26T18:30:00.250+09:00", "2026-11-26 18:30"),
            ("2026-11-26T18:30:00-05:00", "2026-11-27 08:30"),
        ] {
            assert_eq!(read(text).as_deref(), Some(shown), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_to_come_is_refused_in_words() {
        for text in
            ["", "soon", "25:00", "18:3", "2", "2 fortnights", "0m", "2026-02-30 10:00", "2026-11-26", "-1h"]
        {
            let error = moment(text, NOW, seoul).unwrap_err();
            assert!(matches!(error, BadMoment::Unreadable { .. }), "{text}: {error}");
        }
        assert!(matches!(moment("2026-11-26T02:00:00Z", NOW, seoul), Err(BadMoment::Past { .. })));
        assert!(matches!(moment("400d", NOW, seoul), Err(BadMoment::TooFar { .. })));
        assert!(moment("2026-11-26T\u{ac00}Z", NOW, seoul).is_err());
    }

    #[test]
    fn a_time_after_the_clocks_change_is_the_one_on_the_wall() {
        // Two hours ahead until 18:00 UTC, then one.
        let change = NOW + 15 * 60 * MINUTE_MS;
        let zone = |at: u64| if at < change { 7200 } else { 3600 };
        let at = moment("23:30", NOW, zone).unwrap();
        assert_eq!(on_the_wall(at, zone), "2026-11-26 23:30");
        assert_eq!(at, NOW + (19 * 60 + 30) * MINUTE_MS);
    }
}
