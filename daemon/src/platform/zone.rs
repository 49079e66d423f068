//! How far local clocks are from UTC, from the system's own zone file (RFC 9636) or a POSIX `TZ`. Nothing else is asked: the C
//! library's answer cannot be had in safe code.

use std::path::{Path, PathBuf};

/// Most bytes of a zone file; the largest has about 4 KiB.
const LONGEST: u64 = 1 << 20;

/// Seconds that local clocks are ahead of UTC at a moment; zero where nothing tells.
pub(super) fn offset_s(unix_s: i64, variable: Option<&str>) -> i32 {
    let named = variable.map(|name| name.strip_prefix(':').unwrap_or(name)).filter(|name| !name.is_empty());
    let file = match named {
        None => PathBuf::from("/etc/localtime"),
        Some(name) if name.starts_with('/') => PathBuf::from(name),
        Some(name) if name.split('/').any(|part| part == "..") => return 0,
        Some(name) => Path::new("/usr/share/zoneinfo").join(name),
    };
    let fits = std::fs::metadata(&file).is_ok_and(|found| found.is_file() && found.len() <= LONGEST);
    let of_file =
        fits.then(|| std::fs::read(&file).ok()).flatten().and_then(|bytes| of_zone_file(&bytes, unix_s));
    of_file.or_else(|| Rule::read(named?)?.at(unix_s)).unwrap_or(0)
}

fn of_zone_file(bytes: &[u8], unix_s: i64) -> Option<i32> {
    let first = Header::read(bytes)?;
    if first.version < b'2' {
        return None;
    }
    // The first part is of 32-bit times; the second one has all that it has.
    let rest = bytes.get(HEADER + first.body(4)..)?;
    let header = Header::read(rest)?;
    let body = rest.get(HEADER..)?;
    let times = body.get(..header.times * 8)?;
    let kinds = body.get(header.times * 8..header.times * 9)?;
    let types = body.get(header.times * 9..header.times * 9 + header.types * 6)?;
    let offset = |kind: usize| {
        let bytes = types.get(kind * 6..kind * 6 + 4)?;
        Some(i32::from_be_bytes(bytes.try_into().ok()?))
    };
    let time = |at: usize| {
        let bytes = times.get(at * 8..at * 8 + 8)?;
        Some(i64::from_be_bytes(bytes.try_into().ok()?))
    };
    let passed = (0..header.times).take_while(|at| time(*at).is_some_and(|time| time <= unix_s)).count();
    if passed == header.times {
        let footer = body.get(header.body(8)..)?;
        let rule = std::str::from_utf8(footer).ok()?.trim_matches('\n');
        if let Some(offset) = Rule::read(rule).and_then(|rule| rule.at(unix_s)) {
            return Some(offset);
        }
    }
    match passed.checked_sub(1) {
        Some(last) => offset(usize::from(*kinds.get(last)?)),
        None => offset(0),
    }
}

const HEADER: usize = 44;

struct Header {
    version: u8,
    utc_marks: usize,
    standard_marks: usize,
    leaps: usize,
    times: usize,
    types: usize,
    letters: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER)?.strip_prefix(b"TZif")?;
        let count = |at: usize| {
            let bytes: [u8; 4] = bytes.get(16 + at * 4..20 + at * 4)?.try_into().ok()?;
            usize::try_from(u32::from_be_bytes(bytes)).ok().filter(|count| *count <= 1 << 16)
        };
        Some(Self {
            version: *bytes.first()?,
            utc_marks: count(0)?,
            standard_marks: count(1)?,
            leaps: count(2)?,
            times: count(3)?,
            types: count(4)?,
            letters: count(5)?,
        })
    }

    /// Bytes after the header, with times of this size.
    fn body(&self, time: usize) -> usize {
        self.times * (time + 1)
            + self.types * 6
            + self.letters
            + self.leaps * (time + 4)
            + self.standard_marks
            + self.utc_marks
    }
}

/// `KST-9` or `CET-1CEST,M3.5.0,M10.5.0/3`.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    standard: i32,
    summer: Option<Summer>,
}

#[derive(Debug, PartialEq, Eq)]
struct Summer {
    offset: i32,
    begins: Turn,
    ends: Turn,
}

/// A moment of every year: month, week (5 is the last), weekday (0 is Sunday), seconds of the day.
#[derive(Debug, PartialEq, Eq)]
struct Turn {
    month: u32,
    week: u32,
    day: u32,
    time: i32,
}

impl Rule {
    fn read(text: &str) -> Option<Self> {
        let mut rest = text;
        name(&mut rest)?;
        let standard = -clock(&mut rest)?;
        if rest.is_empty() {
            return Some(Self { standard, summer: None });
        }
        name(&mut rest)?;
        let offset = if rest.starts_with(',') { standard + 3600 } else { -clock(&mut rest)? };
        let (begins, ends) = rest.strip_prefix(',')?.split_once(',')?;
        let summer = Summer { offset, begins: Turn::read(begins)?, ends: Turn::read(ends)? };
        Some(Self { standard, summer: Some(summer) })
    }

    fn at(&self, unix_s: i64) -> Option<i32> {
        let Some(summer) = &self.summer else { return Some(self.standard) };
        let year = year_of(unix_s + i64::from(self.standard));
        let begins = summer.begins.in_year(year) - i64::from(self.standard);
        let ends = summer.ends.in_year(year) - i64::from(summer.offset);
        let is_summer =
            if begins < ends { (begins..ends).contains(&unix_s) } else { !(ends..begins).contains(&unix_s) };
        Some(if is_summer { summer.offset } else { self.standard })
    }
}

impl Turn {
    fn read(text: &str) -> Option<Self> {
        let (date, time) = text.split_once('/').map_or((text, None), |(date, time)| (date, Some(time)));
        let mut numbers = date.strip_prefix('M')?.split('.').map(|number| number.parse::<u32>().ok());
        let (month, week, day) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let fits =
            (1..=12).contains(&month) && (1..=5).contains(&week) && day <= 6 && numbers.next().is_none();
        let time = match time {
            Some(mut time) => clock(&mut time).filter(|_| time.is_empty())?,
            None => 2 * 3600,
        };
        fits.then_some(Self { month, week, day, time })
    }

    /// Seconds since the epoch, read on a wall that shows UTC.
    fn in_year(&self, year: i64) -> i64 {
        let first = days_before(year, self.month);
        // The epoch was a Thursday.
        let weekday = (first + 4).rem_euclid(7);
        let mut day = first + (i64::from(self.day) - weekday).rem_euclid(7) + 7 * (i64::from(self.week) - 1);
        let next =
            if self.month == 12 { days_before(year + 1, 1) } else { days_before(year, self.month + 1) };
        if day >= next {
            day -= 7;
        }
        day * 86_400 + i64::from(self.time)
    }
}

/// Skips a zone's name: letters, or anything in `<…>`.
fn name(rest: &mut &str) -> Option<()> {
    let end = if rest.starts_with('<') {
        rest.find('>')? + 1
    } else {
        rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len())
    };
    let named = end >= 3;
    *rest = &rest[end..];
    named.then_some(())
}

/// `[+-]H[H[H]][:MM[:SS]]` in seconds.
fn clock(rest: &mut &str) -> Option<i32> {
    let end = rest.find(|c: char| !(c.is_ascii_digit() || "+-:".contains(c))).unwrap_or(rest.len());
    let (text, after) = rest.split_at(end);
    *rest = after;
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = text.split(':').map(|part| part.parse::<u16>().ok().map(i32::from));
    let hours = parts.next()??.min(167);
    let mut rest_of = || parts.next().unwrap_or(Some(0)).filter(|part| *part < 60);
    let (minutes, seconds) = (rest_of()?, rest_of()?);
    Some(sign * (hours * 3600 + minutes * 60 + seconds))
}

fn year_of(unix_s: i64) -> i64 {
    let days = unix_s.div_euclid(86_400);
    let mut year = 1970 + days.div_euclid(366);
    while days_before(year + 1, 1) <= days {
        year += 1;
    }
    year
}

/// Days from the epoch to the first of a month (Gregorian).
fn days_before(year: i64, month: u32) -> i64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let past = year - 1;
    let leaps = past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400) - 477;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month = usize::try_from(month.clamp(1, 12) - 1).unwrap_or(0);
    (year - 1970) * 365 + leaps + BEFORE[month] + i64::from(leap && month >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-07-01 12:00 UTC and 2026-11-25 12:00 UTC.
    const SUMMER: i64 = 1_782_907_200;
    const WINTER: i64 = 1_795_608_000;

    #[test]
    fn rules_turn_when_they_say() {
        let at = |rule: &str, unix_s| Rule::read(rule).unwrap().at(unix_s).unwrap();
        assert_eq!(at("KST-9", WINTER), 9 * 3600);
        assert_eq!(at("<+0545>-5:45", WINTER), 20_700);
        let berlin = "CET-1CEST,M3.5.0,M10.5.0/3";
        assert_eq!((at(berlin, SUMMER), at(berlin, WINTER)), (7200, 3600));
        // 2026-03-29 01:00 UTC and 2026-10-25 01:00 UTC.
        assert_eq!((at(berlin, 1_774_745_999), at(berlin, 1_774_746_000)), (3600, 7200));
        assert_eq!((at(berlin, 1_792_889_999), at(berlin, 1_792_890_000)), (7200, 3600));
        // Where the summer goes over the end of the year.
        let sydney = "AEST-10AEDT,M10.1.0,M4.1.0/3";
        assert_eq!((at(sydney, SUMMER), at(sydney, WINTER)), (36_000, 39_600));
        let new_york = "EST5EDT,M3.2.0,M11.1.0";
        assert_eq!((at(new_york, SUMMER), at(new_york, WINTER)), (-14_400, -18_000));
        for bad in ["", "Europe/Berlin", "CET", "CET-1CEST", "CET-1CEST,J60,J300", "CET-1CEST,M13.1.0,M1.1.0"]
        {
            assert_eq!(Rule::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn days_are_counted_from_the_epoch() {
        assert_eq!(days_before(1970, 1), 0);
        assert_eq!(days_before(2000, 3), 11_017);
        assert_eq!(days_before(2026, 11), 20_758);
        assert_eq!((year_of(0), year_of(-1), year_of(WINTER)), (1970, 1969, 2026));
    }

    /// A zone file with one turn and a rule after it.
    fn zone_file(rule: &str) -> Vec<u8> {
        let header = |times: u32| {
            let mut bytes = b"TZif2".to_vec();
            bytes.extend([0; 15]);
            for count in [0, 0, 0, times, 2, 8] {
                bytes.extend(u32::to_be_bytes(count));
            }
            bytes
        };
        let types = |bytes: &mut Vec<u8>| {
            for offset in [3600_i32, 7200] {
                bytes.extend(offset.to_be_bytes());
                bytes.extend([0, 0]);
            }
            bytes.extend(b"AAA\0BBB\0");
        };
        let mut bytes = header(1);
        bytes.extend(1000_i32.to_be_bytes());
        bytes.push(1);
        types(&mut bytes);
        bytes.extend(header(1));
        bytes.extend(1000_i64.to_be_bytes());
        bytes.push(1);
        types(&mut bytes);
        bytes.extend(format!("\n{rule}\n").bytes());
        bytes
    }

    #[test]
    fn zone_files_tell_their_turns_and_then_their_rule() {
        let file = zone_file("KST-9");
        assert_eq!(of_zone_file(&file, 999), Some(3600));
        assert_eq!(of_zone_file(&file, 1000), Some(9 * 3600));
        assert_eq!(of_zone_file(&zone_file(""), 1000), Some(7200));
        for end in 0..file.len() - 7 {
            // Cut off anywhere it is no panic.
            let cut = of_zone_file(&file[..end], 1000);
            assert!(cut.is_none_or(|offset| offset.abs() < 86_400), "{cut:?}");
        }
        assert_eq!(of_zone_file(b"TZif", 0), None);
        assert_eq!(of_zone_file(b"", 0), None);
    }

    #[test]
    fn the_variable_goes_before_the_systems_file() {
        assert_eq!(offset_s(WINTER, Some("XYZ-3")), 10_800);
        assert_eq!(offset_s(WINTER, Some(":../../etc/passwd")), 0);
        assert_eq!(offset_s(WINTER, Some("Nowhere/Atall")), 0);
    }
}
