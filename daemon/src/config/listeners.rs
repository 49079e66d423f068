//! `[gateway]`: the ports that ComfyUI's clients ask, and on which terms.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use scenemesh_protocol::api::ReachWords;
use scenemesh_protocol::task::Class;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Bytes, LentClass};
use crate::gateway::{Config, ListenerConfig, UPLOAD_LIMIT};

/// Shortest token: it must not be guessed.
const TOKEN_LENGTH: usize = 16;

/// As it is written: one listener in the table itself, further ones below it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GatewayTable {
    name: Option<String>,
    listen: Option<String>,
    class: Option<LentClass>,
    reach: Option<String>,
    project: Option<String>,
    tokens: Tokens,
    upload_limit: Option<Bytes>,
    frontend_dir: Option<PathBuf>,
    listener: Vec<ListenerTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenerTable {
    name: String,
    listen: String,
    class: Option<LentClass>,
    reach: Option<String>,
    project: Option<String>,
    #[serde(default)]
    tokens: Tokens,
}

/// Never printed.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Tokens(BTreeMap<String, String>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A gateway that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum BadListener {
    #[error(
        "{given:?} is no address for the gateway; give one like 127.0.0.1:7871 with --gateway or as gateway.listen"
    )]
    Address { given: String },
    #[error(
        "the gateway would listen on {given}, which other machines reach; give it a loopback address like 127.0.0.1:7871"
    )]
    NotLoopback { given: SocketAddr },
    #[error(
        "{given:?} is no name for a listener or for whoever has a token; use letters, digits, - and _, at most 32"
    )]
    Name { given: String },
    #[error("two listeners of the gateway are called {given:?}; what one has done would be the other's too")]
    Twice { given: String },
    #[error(
        "the token of {given:?} is shorter than {TOKEN_LENGTH} characters; `openssl rand -hex 16` makes a good one"
    )]
    Token { given: String },
    #[error("two of the gateway's tokens are the same ({given:?} has one of them); give everybody another")]
    SameToken { given: String },
    #[error("gateway.{key} is set, but gateway.listen is not: without an address there is no such listener")]
    NoAddress { key: &'static str },
}

impl GatewayTable {
    /// `listen` is what the command line says instead.
    pub(super) fn config(
        self,
        listen: Option<String>,
        dir: &Path,
        person: &str,
    ) -> Result<Config, BadListener> {
        let Self {
            name,
            listen: written,
            class,
            reach,
            project,
            tokens,
            upload_limit,
            frontend_dir,
            listener,
        } = self;
        let set = [
            ("name", name.is_some()),
            ("class", class.is_some()),
            ("reach", reach.is_some()),
            ("project", project.is_some()),
            ("tokens", !tokens.0.is_empty()),
        ];
        let first = match listen.or(written) {
            Some(listen) => {
                let name = name.unwrap_or_else(|| "gateway".into());
                Some(ListenerTable { name, listen, class, reach, project, tokens })
            }
            None => match set.iter().find(|(_, set)| *set) {
                Some((key, _)) => return Err(BadListener::NoAddress { key }),
                None => None,
            },
        };
        let (mut listeners, mut names) = (Vec::new(), BTreeSet::new());
        for table in first.into_iter().chain(listener) {
            if !names.insert(table.name.clone()) {
                return Err(BadListener::Twice { given: table.name });
            }
            listeners.push(table.config()?);
        }
        let upload_limit = upload_limit.map_or(UPLOAD_LIMIT, |bytes| bytes.0);
        let frontend_dir = frontend_dir.map(|path| dir.join(path));
        Ok(Config { listeners, dir: dir.to_owned(), upload_limit, frontend_dir, person: person.to_owned() })
    }
}

impl ListenerTable {
    fn config(self) -> Result<ListenerConfig, BadListener> {
        let Self { name, listen, class, reach, project, tokens } = self;
        let Ok(address) = listen.parse::<SocketAddr>() else {
            return Err(BadListener::Address { given: listen });
        };
        if !address.ip().is_loopback() {
            return Err(BadListener::NotLoopback { given: address });
        }
        if let Some(given) = [&name].into_iter().chain(tokens.0.keys()).find(|name| !is_name(name)) {
            return Err(BadListener::Name { given: given.clone() });
        }
        let mut seen = BTreeSet::new();
        for (given, token) in &tokens.0 {
            if token.len() < TOKEN_LENGTH {
                return Err(BadListener::Token { given: given.clone() });
            }
            if !seen.insert(token) {
                return Err(BadListener::SameToken { given: given.clone() });
            }
        }
        Ok(ListenerConfig {
            name,
            listen: address,
            class: class.map_or(Class::Normal, |class| class.0),
            reach: reach.map(|words| words.parse::<ReachWords>().unwrap_or_else(|never| match never {})),
            project,
            tokens: tokens.0.into_iter().map(|(name, token)| (name, Zeroizing::new(token))).collect(),
        })
    }
}

fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=32).contains(&name.len()) && name.chars().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str, listen: Option<&str>) -> Result<Config, String> {
        let table: GatewayTable =
            toml::from_str(text).map_err(|error| super::super::described(text, &error))?;
        let config = table.config(listen.map(str::to_owned), Path::new("/d"), "kim");
        config.map_err(|error| error.to_string())
    }

    #[test]
    fn there_is_no_gateway_unless_it_is_asked_for() {
        assert!(config("", None).unwrap().listeners.is_empty());
        let config = config("", Some("127.0.0.1:0")).unwrap();
        let [listener] = &config.listeners[..] else { panic!("one listener") };
        assert_eq!(
            (listener.name.as_str(), listener.listen.port(), listener.class),
            ("gateway", 0, Class::Normal)
        );
        assert!(listener.reach.is_none() && listener.tokens.is_empty());
        assert_eq!((config.upload_limit, config.person.as_str()), (4 << 30, "kim"));
    }

    #[test]
    fn each_listener_has_terms_of_its_own() {
        let text = "listen = \"127.0.0.1:7871\"\nreach = \"pool\"\nupload_limit = \"1 GiB\"\n\
                    [[listener]]\nname = \"film\"\nlisten = \"127.0.0.1:7874\"\nclass = \"batch\"\nproject = \"dawn\"\n\
                    tokens = { lee = \"0123456789abcdef\", park = \"fedcba9876543210\" }\n";
        let config = config(text, Some("127.0.0.1:9999")).unwrap();
        assert_eq!(config.upload_limit, 1 << 30);
        let [first, film] = &config.listeners[..] else { panic!("two listeners") };
        assert_eq!(
            (first.listen.port(), &first.reach),
            (9999, &Some(ReachWords::Pool)),
            "the command line wins"
        );
        assert_eq!((film.class, film.project.as_deref()), (Class::Batch, Some("dawn")));
        assert_eq!(film.tokens.keys().collect::<Vec<_>>(), ["lee", "park"]);
        let shown = format!("{film:?}");
        assert!(
            shown.contains("lee") && !shown.contains("0123456789") && !shown.contains("fedcba"),
            "{shown}"
        );
    }

    #[test]
    fn mistakes_say_what_to_do() {
        for (text, words) in [
            ("listen = \"nonsense\"", "127.0.0.1:7871"),
            ("listen = \"0.0.0.0:7871\"", "loopback"),
            ("listen = \"127.0.0.1:1\"\ntokens = { lee = \"short\" }", "openssl"),
            (
                "listen = \"127.0.0.1:1\"\ntokens = { lee = \"0123456789abcdef\", kim = \"0123456789abcdef\" }",
                "same",
            ),
            ("listen = \"127.0.0.1:1\"\ntokens = { \"a b\" = \"0123456789abcdef\" }", "no name"),
            (
                "listen = \"127.0.0.1:1\"\n[[listener]]\nname = \"gateway\"\nlisten = \"127.0.0.1:2\"",
                "two listeners",
            ),
            ("reach = \"pool\"", "gateway.reach"),
            ("listen = \"127.0.0.1:1\"\nclass = \"quick\"", "urgent"),
            ("listen = \"127.0.0.1:1\"\ntokens = { lee = \"0123456789abcdef\" kim = 1 }", "line"),
            ("listn = \"127.0.0.1:1\"", "listn"),
        ] {
            let error = config(text, None).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains("0123456789abcdef"), "a token is not printed: {error}");
        }
    }
}
