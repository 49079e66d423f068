//! Numbers as people read them. Units are the same in every language.

/// `1.2 MB`, decimal as file managers have it.
pub(crate) fn bytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 || unit == "TB" {
            let digits = usize::from(unit != "B" && value < 9.95);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    unreachable!("the last unit takes everything")
}

/// `820ms`, `12.3s`, `4m05s`, `3h12m`, `2d04h`.
pub(crate) fn span_ms(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        _ if ms < 1000 => format!("{ms}ms"),
        0..60 => format!("{}.{}s", seconds, ms % 1000 / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// An age in its largest unit: `12s`, `4m`, `3h`, `2d`.
pub(crate) fn age_ms(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// GPU memory, in the GiB that GPUs are labelled with: `22.1`, `24.0`.
pub(crate) fn gib(mib: u32) -> String {
    format!("{:.1}", f64::from(mib) / 1024.0)
}

/// Round trip: `0.3ms`, `18ms`.
pub(crate) fn rtt(us: u64) -> String {
    if us < 10_000 { format!("{}.{}ms", us / 1000, us % 1000 / 100) } else { format!("{}ms", us / 1000) }
}

/// `2026-11-23T13:05:00Z`, from milliseconds since the Unix epoch. Days to date after Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
pub(crate) fn utc(ms: u64) -> String {
    let seconds = ms / 1000;
    let days = i64::try_from(seconds / 86_400).unwrap_or(i64::MAX / 2) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let second = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second % 3600 / 60,
        second % 60
    )
}

/// Milliseconds since the Unix epoch, by this machine's clock.
#[expect(clippy::disallowed_methods, reason = "the one place of the command line that reads the wall clock")]
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_at_most() {
        let shown: Vec<_> = [0, 999, 1000, 1234, 12_345, 999_499, 999_600, 5_000_000_000].map(bytes).into();
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "1.2 kB", "12 kB", "999 kB", "1.0 MB", "5.0 GB"]);
    }

    #[test]
    fn times_stay_short() {
        let shown: Vec<_> = [820, 12_345, 245_000, 11_520_000, 187_200_000].map(span_ms).into();
        assert_eq!(shown, ["820ms", "12.3s", "4m05s", "3h12m", "2d04h"]);
        assert_eq!([12_000, 250_000, 11_520_000, 187_200_000].map(age_ms), ["12s", "4m", "3h", "2d"]);
        assert_eq!([340, 18_200].map(rtt), ["0.3ms", "18ms"]);
    }

    #[test]
    fn dates_are_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399_000), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_868_799_000), "2000-02-29T23:59:59Z");
        assert_eq!(utc(1_795_438_800_000), "2026-11-23T13:00:00Z");
    }
}
