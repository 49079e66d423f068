//! Reads what people type: ids, needs, settings, inputs, durations. An error is an example of what would have done.

use std::path::PathBuf;
use std::time::Duration;

use scenemesh_protocol::api::{COUNT_LIMIT, NeedsRequest, Setting};

/// A job's or task's id, or the beginning of one; so plain that it can stand in a URL.
pub(crate) fn id(text: &str) -> Result<String, String> {
    let fits = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { Ok(text.to_ascii_lowercase()) } else { Err("3fa9c1d2".into()) }
}

/// How many tasks.
pub(crate) fn count(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=COUNT_LIMIT).contains(count))
        .ok_or_else(|| format!("1–{COUNT_LIMIT}"))
}

/// A proposal's id or its beginning.
pub(crate) fn hash(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { Ok(text.to_ascii_lowercase()) } else { Err("3fa9c1d2".into()) }
}

/// `vram=24GB,cc=8.9`, either or both. Sizes are GB or GiB (both 1024 MiB, as GPUs are labelled) or MB or MiB.
pub(crate) fn needs(text: &str) -> Result<NeedsRequest, String> {
    let mut needs = NeedsRequest::default();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
            Some(("vram", value)) => needs.vram_mib = Some(vram_mib(value)?),
            Some(("cc", value)) => needs.min_cc = Some(compute_capability(value)?),
            _ => return Err("vram=24GB,cc=8.9".into()),
        }
    }
    Ok(needs)
}

fn vram_mib(text: &str) -> Result<u32, String> {
    let bad = || "vram=24GB, vram=24576MB".to_owned();
    let lower = text.to_ascii_lowercase();
    let (number, factor) =
        [("gib", 1024.0), ("gb", 1024.0), ("g", 1024.0), ("mib", 1.0), ("mb", 1.0), ("m", 1.0)]
            .iter()
            .find_map(|(unit, factor)| Some((lower.strip_suffix(unit)?, *factor)))
            .ok_or_else(bad)?;
    let number: f64 = number.trim().parse().map_err(|_| bad())?;
    let mib = (number * factor).ceil();
    if !(1.0..=16_777_216.0).contains(&mib) {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
    Ok(mib as u32)
}

fn compute_capability(text: &str) -> Result<u16, String> {
    let bad = || "cc=8.9".to_owned();
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    let major: u16 = major.parse().map_err(|_| bad())?;
    let minor: u16 = minor.parse().map_err(|_| bad())?;
    if major > 99 || minor > 9 {
        return Err(bad());
    }
    Ok(major * 10 + minor)
}

/// `NODE.INPUT=VALUE`; everything after the first `=` is the value.
pub(crate) fn setting(text: &str) -> Result<Setting, String> {
    match text.split_once('=') {
        Some((path, value)) if path.contains('.') && !path.starts_with('.') && !path.ends_with('.') => {
            Ok(Setting { path: path.to_owned(), value: value.to_owned() })
        }
        _ => Err("NODE.INPUT=VALUE, 3.seed=42".into()),
    }
}

/// An input file and the name it has in the workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedFile {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// `NAME=FILE`, or `FILE` when the workflow calls it by its file name.
pub(crate) fn named_file(text: &str) -> Result<NamedFile, String> {
    let (name, path) = match text.split_once('=') {
        Some((name, path)) => (name.to_owned(), PathBuf::from(path)),
        None => {
            let path = PathBuf::from(text);
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            (name, path)
        }
    };
    if name.is_empty() || path.as_os_str().is_empty() {
        return Err("NAME=FILE, start.png=./shot-010.png".into());
    }
    Ok(NamedFile { name, path })
}

/// `30m`, `24h`, `7d`; a bare number is refused, since nobody knows of what.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "30m, 24h, 7d".to_owned();
    let unit = text.chars().last().ok_or_else(bad)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = text[..text.len() - 1].trim().parse().map_err(|_| bad())?;
    number.checked_mul(seconds).filter(|total| *total > 0).map(Duration::from_secs).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read_as_gpus_are_labelled() {
        let both = NeedsRequest { vram_mib: Some(24_576), min_cc: Some(89) };
        assert_eq!(needs("vram=24GB,cc=8.9"), Ok(both));
        assert_eq!(needs(" vram=24gib , cc=8.9 "), Ok(both));
        assert_eq!(needs("vram=500MB").map(|needs| needs.vram_mib), Ok(Some(500)));
        assert_eq!(needs("vram=1.5g").map(|needs| needs.vram_mib), Ok(Some(1536)));
        assert_eq!(needs("cc=12").map(|needs| needs.min_cc), Ok(Some(120)));
        for bad in ["vram=24", "vram=", "vram=-1GB", "vram=1e99GB", "cc=8.95", "cc=x", "ram=3GB", "vram"] {
            assert!(needs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_keep_everything_after_the_first_equals_sign() {
        let setting = setting("6.text=a = b").unwrap();
        assert_eq!((setting.path.as_str(), setting.value.as_str()), ("6.text", "a = b"));
        for bad in ["6.text", "text=1", ".text=1", "6.=1"] {
            assert!(super::setting(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn inputs_may_go_by_their_file_name() {
        assert_eq!(named_file("dir/a.png"), Ok(NamedFile { name: "a.png".into(), path: "dir/a.png".into() }));
        assert_eq!(
            named_file("start.png=b=c.png"),
            Ok(NamedFile { name: "start.png".into(), path: "b=c.png".into() })
        );
        assert!(named_file("=a").is_err());
        assert!(named_file("a=").is_err());
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("24h"), Ok(Duration::from_hours(24)));
        assert_eq!(duration("30m"), Ok(Duration::from_mins(30)));
        for bad in ["24", "h", "", "0h", "-1h", "1w", "99999999999999999999d", "시"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
