//! Assembles every module's configuration from `scenemesh.toml`, the command line and the environment.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use scenemesh_protocol::task::Class;
use serde::Deserialize;

use crate::scheduler::lend::{Hours, LONGEST_FINISH, Lend};
use crate::{api, executor, gateway, network, scheduler, store};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod listeners;

/// Name of the configuration file in the data directory.
pub const CONFIG_FILE: &str = "scenemesh.toml";

/// Everything that a node needs to start.
#[derive(Clone, Debug)]
pub struct Config {
    pub dir: PathBuf,
    pub network: network::Config,
    pub store: store::Config,
    pub executor: executor::Config,
    pub api: api::Config,
    pub gateway: gateway::Config,
    pub scheduler: scheduler::Config,
}

/// What the command line says instead of the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub listen: Vec<String>,
    pub porch: Vec<String>,
    pub api: Option<String>,
    pub gateway: Option<String>,
}

/// What other studios see of this node, and what it does for them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LendTable {
    shared_folders: Option<BTreeSet<String>>,
    to: Option<BTreeSet<String>>,
    classes: Option<BTreeSet<LentClass>>,
    max_vram: Option<Vram>,
    hours: Option<LentHours>,
    finish: Option<Finish>,
}

impl LendTable {
    fn lend(self) -> Lend {
        Lend {
            to: self.to,
            classes: self.classes.map(|classes| classes.into_iter().map(|class| class.0).collect()),
            max_vram_mib: self.max_vram.map(|vram| vram.0),
            hours: self.hours.map(|hours| hours.0),
            finish: self.finish.map(|finish| finish.0),
        }
    }
}

/// How long others' work may take to finish once the GPU is wanted back: none to a minute.
#[derive(Debug)]
struct Finish(Duration);

impl<'de> Deserialize<'de> for Finish {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let span = if text.trim() == "0s" { Some(Duration::ZERO) } else { parse_span(&text) };
        span.filter(|span| *span <= LONGEST_FINISH).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text:?} is no time of at most a minute; write for example \"30s\""
            ))
        })
    }
}

/// A class of jobs, by its name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LentClass(Class);

impl<'de> Deserialize<'de> for LentClass {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "urgent" => Ok(Self(Class::Urgent)),
            "normal" => Ok(Self(Class::Normal)),
            "batch" => Ok(Self(Class::Batch)),
            _ => Err(serde::de::Error::custom(format!(
                "{text:?} is no class of jobs; write some of \"urgent\", \"normal\", \"batch\""
            ))),
        }
    }
}

/// Video memory as GPUs are labelled, in MiB: `"20 GB"` is 20 · 1024, like in `--needs`.
#[derive(Debug)]
struct Vram(u32);

impl<'de> Deserialize<'de> for Vram {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_vram(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text:?} is no size of video memory; write for example \"20 GB\" or \"12288 MB\""
            ))
        })
    }
}

fn parse_vram(text: &str) -> Option<u32> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "gb" | "gib" | "g" => 1024,
        "mb" | "mib" | "m" => 1,
        _ => return None,
    };
    number.parse::<u32>().ok()?.checked_mul(scale).filter(|mib| *mib > 0)
}

/// One text or a list of them.
#[derive(Debug)]
struct LentHours(Hours);

impl<'de> Deserialize<'de> for LentHours {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            One(String),
            Several(Vec<String>),
        }
        let hours = match Written::deserialize(deserializer) {
            Ok(Written::One(text)) => Hours::of([text.as_str()]),
            Ok(Written::Several(texts)) => Hours::of(texts.iter().map(String::as_str)),
            Err(_) => Hours::of([]),
        };
        hours.map(Self).map_err(serde::de::Error::custom)
    }
}

/// The file as it is written; unknown keys are refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    network: network::Config,
    store: StoreTable,
    api: ApiTable,
    gateway: listeners::GatewayTable,
    lend: LendTable,
    limits: LimitsTable,
    keep: KeepTable,
    comfyui: Vec<ComfyuiTable>,
}

/// What others may take of this node.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LimitsTable {
    disk_per_node: Option<Bytes>,
    journal_per_hour: Option<Bytes>,
    output_bytes: Option<Bytes>,
    fetch_time: Option<Span>,
    task_time: Option<Span>,
    porch_burst: Option<u32>,
    porch_per_minute: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StoreTable {
    quota: Option<Bytes>,
    reserve: Option<Bytes>,
    keep_results: Option<Keep>,
}

/// Jobs of other nodes of the studio that are held here.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct KeepTable {
    after: Option<Span>,
}

/// How long to keep something: `"30d"`, `"12h"`, or `"forever"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Keep(Option<Duration>);

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_keep(&text).map(Self).ok_or_else(|| {
            let hint = "write \"30d\", \"12h\" or \"forever\", at least \"1h\"";
            serde::de::Error::custom(format!("{text:?} is no time to keep results; {hint}"))
        })
    }
}

fn parse_keep(text: &str) -> Option<Option<Duration>> {
    let text = text.trim().to_ascii_lowercase();
    if text == "forever" {
        return Some(None);
    }
    let (number, hours) = match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(days), _) => (days, 24),
        (_, Some(hours)) => (hours, 1),
        _ => return None,
    };
    let hours = number.trim().parse::<u64>().ok()?.checked_mul(hours)?;
    // Beyond a century it is a mistake; "forever" says it better.
    (1..=24 * 366 * 100).contains(&hours).then(|| Some(Duration::from_hours(hours)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ApiTable {
    listen: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ComfyuiTable {
    url: String,
    input_dir: Option<PathBuf>,
    output_dir: Option<PathBuf>,
    temp_dir: Option<PathBuf>,
}

/// A number of bytes, written as `"200 GiB"`, `"500MB"` or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bytes(u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => parse_bytes(&text).map(Self).ok_or_else(|| {
                serde::de::Error::custom(format!("{text:?} is not a size; write for example \"200 GiB\""))
            }),
        }
    }
}

/// A time, written as `"30s"`, `"10m"` or `"12h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_span(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?} is not a time; write for example \"10m\" or \"12h\""))
        })
    }
}

/// None for no time at all: a limit of nothing would refuse everything.
fn parse_span(text: &str) -> Option<Duration> {
    let digits = text.trim().find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.trim().split_at(digits);
    let seconds = match unit.trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (1..=366 * 24 * 3600).contains(&seconds).then(|| Duration::from_secs(seconds))
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim().find(|c: char| !c.is_ascii_digit()).unwrap_or(text.trim().len());
    let (number, unit) = text.trim().split_at(digits);
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

/// A configuration that cannot be used: which file or flag, what is wrong, what to do.
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    #[error("{} cannot be read: {source}; check --data-dir and --config, and who owns the file", file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("{}: {why}", file.display())]
    Malformed { file: PathBuf, why: Unexpected },
    #[error(
        "{given:?} is no address for the local API; give one like 127.0.0.1:7870 with --api or as api.listen"
    )]
    ApiAddress { given: String },
    #[error(
        "the local API would listen on {given}, which other machines reach; give it a loopback address like 127.0.0.1:7870"
    )]
    ApiNotLoopback { given: SocketAddr },
    #[error("{}: {why}", file.display())]
    Gateway { file: PathBuf, why: listeners::BadListener },
    #[error("{given:?} ({from}) is not the URL of a ComfyUI; write one like http://127.0.0.1:8188")]
    ComfyuiUrl { given: String, from: &'static str },
}

/// What TOML says, with its position.
#[derive(Debug)]
pub struct Unexpected(String);

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_end())
    }
}

/// What is wrong and where: of the line no more than its key, since a token may stand behind it.
fn described(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let place = before.map(|before| {
        let number = before.matches('\n').count();
        let line = text.lines().nth(number).unwrap_or_default();
        let key = line.split_once('=').map_or("", |(key, _)| key.trim());
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        format!("line {}, column {column}: {key}", number + 1)
    });
    format!("{}{}", place.unwrap_or_default(), error.message())
}

impl Config {
    /// Reads `file`, or `DIR/scenemesh.toml` when there is one, and puts the command line and `COMFYUI_HOST` on top.
    ///
    /// # Errors
    /// When the file cannot be read, has unknown keys, or an address makes no sense.
    pub fn load(
        dir: &Path,
        file: Option<&Path>,
        overrides: &Overrides,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, BadConfig> {
        let path = file.map_or_else(|| dir.join(CONFIG_FILE), Path::to_owned);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => String::new(),
            Err(source) => return Err(BadConfig::Unreadable { file: path, source }),
        };
        let parsed: File = toml::from_str(&text).map_err(|error| BadConfig::Malformed {
            file: path.clone(),
            why: Unexpected(described(&text, &error)),
        })?;
        Self::assemble(dir, &path, parsed, overrides, lookup)
    }

    fn assemble(
        dir: &Path,
        path: &Path,
        file: File,
        overrides: &Overrides,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, BadConfig> {
        let mut network = file.network;
        network.dir = Some(dir.to_owned());
        if !overrides.listen.is_empty() {
            network.listen.clone_from(&overrides.listen);
        }
        if !overrides.porch.is_empty() {
            network.porch.clone_from(&overrides.porch);
        }
        let defaults = store::Config::at(dir);
        let store = store::Config {
            quota: file.store.quota.map_or(defaults.quota, |bytes| bytes.0),
            reserve: file.store.reserve.map_or(defaults.reserve, |bytes| bytes.0),
            ..defaults
        };
        let api = overrides.api.clone().or(file.api.listen);
        let host = lookup("COMFYUI_HOST").filter(|host| !host.is_empty());
        let host = host.map(|host| host.to_string_lossy().into_owned());
        let endpoints = endpoints(file.comfyui, host.as_deref())?;
        let mut scheduler = scheduler::Config::default();
        if let Some(Keep(keep)) = file.store.keep_results {
            scheduler.keep_results = keep;
        }
        if let Some(span) = file.keep.after {
            scheduler.keep_after = span.0;
        }
        let mut lend = file.lend;
        if let Some(folders) = lend.shared_folders.take() {
            scheduler.shared_folders = folders;
        }
        scheduler.lend = lend.lend();
        let limits = file.limits;
        // A quarter of the room: three others still have some when one fills its part.
        scheduler.limits.disk_per_node = limits.disk_per_node.map_or(store.quota / 4, |bytes| bytes.0);
        if let Some(bytes) = limits.journal_per_hour {
            scheduler.limits.journal_per_hour = bytes.0;
        }
        if let Some(span) = limits.fetch_time {
            scheduler.limits.fetch_time = span.0;
        }
        if let Some(bytes) = limits.output_bytes {
            scheduler.output_bytes = bytes.0;
        }
        if let Some(span) = limits.task_time {
            scheduler.time_limit = span.0;
        }
        network.porch_burst = limits.porch_burst.unwrap_or(network.porch_burst);
        network.porch_per_minute = limits.porch_per_minute.unwrap_or(network.porch_per_minute);
        let person = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| lookup(name));
        let person = person.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let gateway = file.gateway.config(overrides.gateway.clone(), dir, &person);
        let gateway = gateway.map_err(|why| BadConfig::Gateway { file: path.to_owned(), why })?;
        Ok(Self {
            dir: dir.to_owned(),
            gateway,
            network,
            store,
            executor: executor::Config { endpoints, owner: String::new() },
            api: api::Config { listen: api_address(api)?, dir: dir.to_owned(), comfyui_host: host, person },
            scheduler,
        })
    }
}

fn api_address(given: Option<String>) -> Result<SocketAddr, BadConfig> {
    let given = given.unwrap_or_else(|| "127.0.0.1:7870".into());
    let Ok(address) = given.parse::<SocketAddr>() else { return Err(BadConfig::ApiAddress { given }) };
    if address.ip().is_loopback() { Ok(address) } else { Err(BadConfig::ApiNotLoopback { given: address }) }
}

fn endpoints(
    tables: Vec<ComfyuiTable>,
    host: Option<&str>,
) -> Result<Vec<executor::EndpointConfig>, BadConfig> {
    let from_environment = || {
        let host = host?;
        let url = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
        Some(ComfyuiTable { url, input_dir: None, output_dir: None, temp_dir: None })
    };
    let from = if tables.is_empty() { "COMFYUI_HOST" } else { "[[comfyui]] url" };
    let tables = if tables.is_empty() { from_environment().into_iter().collect() } else { tables };
    tables
        .into_iter()
        .map(|table| {
            if !table.url.starts_with("http://") || table.url.len() <= "http://".len() {
                return Err(BadConfig::ComfyuiUrl { given: table.url, from });
            }
            let ComfyuiTable { url, input_dir, output_dir, temp_dir } = table;
            Ok(executor::EndpointConfig { url, input_dir, output_dir, temp_dir })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, BadConfig> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG_FILE), text).unwrap();
        Config::load(dir.path(), None, &Overrides::default(), |name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn an_empty_file_gives_the_documented_defaults() {
        let config = load("", &[]).unwrap();
        assert_eq!(config.api.listen.to_string(), "127.0.0.1:7870");
        assert_eq!(config.network.listen, ["/ip4/0.0.0.0/tcp/7872"]);
        assert!(config.executor.endpoints.is_empty());
        assert!(
            !config.scheduler.shared_folders.iter().any(|folder| folder == "loras" || folder == "embeddings")
        );
    }

    #[test]
    fn unknown_keys_are_refused_with_their_place() {
        let error = load("[network]\nmdsn = true\n", &[]).unwrap_err().to_string();
        assert!(error.contains("mdsn") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn sizes_are_written_as_people_write_them() {
        assert_eq!(parse_bytes("200 GiB"), Some(200 << 30));
        assert_eq!(parse_bytes("5MB"), Some(5_000_000));
        assert_eq!(parse_bytes("12"), Some(12));
        assert_eq!(parse_bytes("many"), None);
        assert_eq!(load("[store]\nquota = \"1 TiB\"\n", &[]).unwrap().store.quota, 1 << 40);
    }

    #[test]
    fn limits_have_defaults_and_are_read() {
        let config = load("[store]\nquota = \"40 GiB\"\n", &[]).unwrap();
        assert_eq!(config.scheduler.limits.disk_per_node, 10 << 30, "a quarter of the quota");
        assert_eq!(config.scheduler.time_limit, Duration::from_hours(12));
        let text = "[limits]\ndisk_per_node = \"1 GiB\"\njournal_per_hour = \"8 MiB\"\noutput_bytes = \"2 GiB\"\n\
                    fetch_time = \"5m\"\ntask_time = \"2h\"\nporch_burst = 3\nporch_per_minute = 6\n";
        let config = load(text, &[]).unwrap();
        assert_eq!(config.scheduler.limits.disk_per_node, 1 << 30);
        assert_eq!(config.scheduler.limits.journal_per_hour, 8 << 20);
        assert_eq!(config.scheduler.limits.fetch_time, Duration::from_mins(5));
        assert_eq!(
            (config.scheduler.output_bytes, config.scheduler.time_limit),
            (2 << 30, Duration::from_hours(2))
        );
        assert_eq!((config.network.porch_burst, config.network.porch_per_minute), (3, 6));
        for bad in [
            "links = 3",
            "fetch_time = \"soon\"",
            "fetch_time = \"0s\"",
            "task_time = 5",
            "disk_per_node = \"much\"",
        ] {
            let error = load(&format!("[limits]\n{bad}\n"), &[]).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{error}");
        }
    }

    #[test]
    fn results_are_kept_as_long_as_it_says() {
        let keep = |text: &str| {
            load(&format!("[store]\nkeep_results = \"{text}\"\n"), &[])
                .map(|config| config.scheduler.keep_results)
        };
        assert_eq!(load("", &[]).unwrap().scheduler.keep_results, Some(Duration::from_hours(720)));
        assert_eq!(keep("12h").unwrap(), Some(Duration::from_hours(12)));
        assert_eq!(keep("forever").unwrap(), None);
        for wrong in ["0d", "soon", "30", "99999999999d"] {
            assert!(keep(wrong).unwrap_err().to_string().contains("forever"), "{wrong}");
        }
    }

    #[test]
    fn comfyui_host_counts_only_when_the_file_names_none() {
        let host = [("COMFYUI_HOST", "127.0.0.1:9000")];
        assert_eq!(load("", &host).unwrap().executor.endpoints[0].url, "http://127.0.0.1:9000");
        let named = load("[[comfyui]]\nurl = \"http://127.0.0.1:8188\"\n", &host).unwrap();
        assert_eq!(named.executor.endpoints.len(), 1);
        assert_eq!(named.executor.endpoints[0].url, "http://127.0.0.1:8188");
        assert!(load("", &[("COMFYUI_HOST", "https://x")]).is_err());
    }

    #[test]
    fn lending_is_read_and_its_mistakes_name_their_line() {
        let lend = load("", &[]).unwrap().scheduler.lend;
        assert_eq!(lend, Lend::default());
        let text = "[lend]\nto = [\"birch\"]\nclasses = [\"batch\", \"normal\"]\nmax_vram = \"20 GB\"\nhours = [\"19:00-08:00\", \"Sat,Sun\"]\n";
        let lend = load(text, &[]).unwrap().scheduler.lend;
        assert_eq!(lend.to, Some(BTreeSet::from(["birch".to_owned()])));
        assert_eq!(lend.classes, Some(BTreeSet::from([Class::Batch, Class::Normal])));
        assert_eq!(lend.max_vram_mib, Some(20 << 10));
        assert_eq!(lend.hours.unwrap().written(), ["19:00-08:00", "Sat,Sun"]);
        assert!(load("[lend]\nhours = \"Mon-Fri 19:00-08:00\"\n", &[]).is_ok());
        for (written, finish) in [("0s", 0), ("45s", 45), ("1m", 60)] {
            let lend = load(&format!("[lend]\nfinish = \"{written}\"\n"), &[]).unwrap().scheduler.lend;
            assert_eq!(lend.finish(), Duration::from_secs(finish));
        }
        for (line, words) in [
            ("hours = \"evenings\"", "\"evenings\" are no hours; write \"19:00-08:00\""),
            ("hours = []", "write \"19:00-08:00\""),
            ("hours = 8", "write \"19:00-08:00\""),
            ("classes = [\"quick\"]", "write some of \"urgent\""),
            ("max_vram = \"lots\"", "write for example \"20 GB\""),
            ("max_vram = \"0 GB\"", "write for example \"20 GB\""),
            ("finish = \"2m\"", "write for example \"30s\""),
            ("finish = \"soon\"", "at most a minute"),
            ("hour = \"19:00-08:00\"", "hour"),
            ("to = \"birch\"", "birch"),
        ] {
            let error = load(&format!("[lend]\n{line}\n"), &[]).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn the_api_stays_on_loopback() {
        let error = load("[api]\nlisten = \"0.0.0.0:7870\"\n", &[]).unwrap_err().to_string();
        assert!(error.contains("loopback"), "{error}");
    }
}
