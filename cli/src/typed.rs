//! Reads what people type: ids, needs, settings, inputs, durations. An error is an example of what would have done.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use scenemesh_protocol::api::{COUNT_LIMIT, FeedRequest, NeedsRequest, Ranges, Setting};

/// A job's or task's id, or the beginning of one; so plain that it can stand in a URL.
pub(crate) fn id(text: &str) -> Result<String, String> {
    let fits = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { Ok(text.to_ascii_lowercase()) } else { Err("3fa9c1d2".into()) }
}

/// A job's or task's id, or the beginning of one, and perhaps numbers of the job's tasks: `3fa9c1d2:3..7`.
pub(crate) fn tasks(text: &str) -> Result<Tasks, String> {
    let example = || "3fa9c1d2, 3fa9c1d2:3, 3fa9c1d2:3..7, 3fa9c1d2:1,4,9".to_owned();
    let (given, ranges) = Ranges::split(text).map_err(|_| example())?;
    Ok(Tasks { id: id(given).map_err(|_| example())?, ranges })
}

/// What [`tasks`] reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tasks {
    pub(crate) id: String,
    pub(crate) ranges: Ranges,
}

impl fmt::Display for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if self.ranges.is_all() { Ok(()) } else { write!(f, ":{}", self.ranges) }
    }
}

/// `NODE.INPUT=` and what it is varied over: `1..5`, `0.5..1/0.1`, `euler,dpmpp_2m`, `["a, b", "c"]` or `@FILE` with a
/// value on each line.
pub(crate) fn variation(text: &str) -> Result<Vary, String> {
    let example = || "NODE.INPUT=1..5, =0.5..1/0.1, =euler,dpmpp_2m, =@prompts.txt".to_owned();
    let Setting { path, value } = setting(text).map_err(|_| example())?;
    if let Some(file) = value.strip_prefix('@') {
        return if file.is_empty() {
            Err(example())
        } else {
            Ok(Vary { path, over: Over::File(file.into()) })
        };
    }
    let listed = || value.split(',').map(|value| value.trim().to_owned()).collect::<Vec<_>>();
    let values = if value.starts_with('[') {
        let list: Vec<serde_json::Value> = serde_json::from_str(&value).map_err(|_| example())?;
        list.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect()
    } else {
        series(&value)?.unwrap_or_else(listed)
    };
    if values.is_empty() || values.iter().any(String::is_empty) {
        return Err(example());
    }
    Ok(Vary { path, over: Over::Values(values) })
}

/// What [`variation`] reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vary {
    pub(crate) path: String,
    pub(crate) over: Over,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Values(Vec<String>),
    /// A value on each line.
    File(PathBuf),
}

/// `FROM..TO` or `FROM..TO/STEP`, both ends in it; `None` when it is something else. Counted in units of the last
/// decimal that is written, so that a tenth is a tenth each time.
fn series(text: &str) -> Result<Option<Vec<String>>, String> {
    let Some((from, rest)) = text.split_once("..") else { return Ok(None) };
    let (to, step) = rest.split_once('/').map_or((rest, None), |(to, step)| (to, Some(step)));
    let step = step.unwrap_or("1");
    let decimals = |part: &str| part.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let places = decimals(from).max(decimals(to)).max(decimals(step));
    let units = |part: &str| -> Option<i64> {
        let (sign, digits) = part.strip_prefix('-').map_or((1, part), |rest| (-1, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !plain(whole) || !plain(fraction) || places > 9 {
            return None;
        }
        Some(sign * format!("{whole}{fraction:0<places$}").parse::<i64>().ok()?)
    };
    let (Some(from), Some(to), Some(step)) = (units(from), units(to), units(step)) else { return Ok(None) };
    let count = to.checked_sub(from).and_then(|span| span.checked_div(step.abs())).map(i64::abs);
    if step <= 0 || from > to || count.is_none_or(|count| count >= i64::from(COUNT_LIMIT)) {
        return Err(format!("FROM..TO/STEP, at most {COUNT_LIMIT} of them"));
    }
    let written = |units: i64| {
        if places == 0 {
            return units.to_string();
        }
        let sign = if units < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", units.abs(), width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        format!("{sign}{whole}.{fraction}")
    };
    let steps = std::iter::successors(Some(from), |at| at.checked_add(step));
    Ok(Some(steps.take_while(|at| *at <= to).map(written).collect()))
}

/// A workflow that goes on with results of the one before: `FILE:NAME=NODE[#K][,NAME=NODE…]`.
pub(crate) fn stage(text: &str) -> Result<Stage, String> {
    let example = || "upscale.json:drawn.png=9, upscale.json:drawn.png=9#1".to_owned();
    let (path, feeds) = text.rsplit_once(':').ok_or_else(example)?;
    let feed = |text: &str| {
        let (name, from) = text.split_once('=')?;
        let (node, file) = from.split_once('#').unwrap_or((from, "0"));
        let (name, node, file) = (name.trim().to_owned(), node.trim().to_owned(), file.parse().ok()?);
        (!name.is_empty() && !node.is_empty()).then_some(FeedRequest { name, node, file, stage: None })
    };
    let feeds = feeds.split(',').map(feed).collect::<Option<Vec<_>>>().ok_or_else(example)?;
    if path.is_empty() { Err(example()) } else { Ok(Stage { path: path.into(), feeds }) }
}

/// What [`stage`] reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) path: PathBuf,
    pub(crate) feeds: Vec<FeedRequest>,
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
    fn what_is_varied_is_a_series_a_list_or_a_file() {
        let values = |text: &str| match variation(&format!("3.cfg={text}")).unwrap().over {
            Over::Values(values) => values.join("|"),
            Over::File(path) => path.display().to_string(),
        };
        assert_eq!(values("1..4"), "1|2|3|4");
        assert_eq!(values("-1..1"), "-1|0|1");
        assert_eq!(values("0.5..1/0.25"), "0.50|0.75|1.00");
        assert_eq!(values("-0.1..0.1/0.1"), "-0.1|0.0|0.1");
        assert_eq!(values("10..15/2"), "10|12|14");
        assert_eq!(values("euler, dpmpp_2m"), "euler|dpmpp_2m");
        assert_eq!(values(r#"["a, b", 7, true]"#), "a, b|7|true");
        assert_eq!(values("to be..or not"), "to be..or not", "words are words");
        assert_eq!(values("@prompts.txt"), "prompts.txt");
        for bad in [
            "3.cfg=",
            "3.cfg=1,,2",
            "3.cfg=[1,",
            "3.cfg=[]",
            "3.cfg=5..1",
            "3.cfg=1..99999",
            "3.cfg=1..2/0",
            "x=1",
        ] {
            assert!(variation(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tasks_go_by_their_numbers() {
        for text in ["3fa9c1d2", "3fa9c1d2:3", "3fa9c1d2:3..7,9"] {
            assert_eq!(tasks(text).unwrap().to_string(), text);
        }
        for bad in ["", ":3", "3fa9:", "3fa9:x", "zz:3"] {
            assert!(tasks(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stage_names_what_it_takes() {
        let read = stage("C:/w/up.json:a.png=9,b.png=4#2").unwrap();
        assert_eq!(read.path, PathBuf::from("C:/w/up.json"));
        let feed = |name: &str, node: &str, file| FeedRequest {
            name: name.into(),
            node: node.into(),
            file,
            stage: None,
        };
        assert_eq!(read.feeds, [feed("a.png", "9", 0), feed("b.png", "4", 2)]);
        for bad in ["up.json", "up.json:", ":a=9", "up.json:a", "up.json:a=9#x", "up.json:=9"] {
            assert!(stage(bad).is_err(), "{bad}");
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
