//! PURE: whether a request was meant for us. Loopback is no proof: any page in a browser on this machine reaches it.

use std::net::SocketAddr;

use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};

/// The names under which a listener is asked.
#[derive(Clone, Debug)]
pub(crate) struct Hosts(Vec<String>);

/// A request that was meant for somebody else, or comes from somebody else's page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// A name that an attacker's DNS points here.
    Host(String),
    Origin(String),
    /// What the browser says of the page that asks.
    Site(String),
}

impl Hosts {
    pub(crate) fn of(address: SocketAddr) -> Self {
        let port = address.port();
        let mut hosts = vec![address.to_string(), format!("localhost:{port}")];
        if port == 80 {
            hosts.extend([address.ip().to_string(), "localhost".into()]);
        }
        Self(hosts)
    }

    /// Looks at `Host`, and at `Origin` where there is one.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Foreign> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = text(HOST).unwrap_or_default();
        let ours = |host: &str| self.0.iter().any(|known| known.eq_ignore_ascii_case(host));
        if !ours(host) || headers.get_all(HOST).iter().count() > 1 {
            return Err(Foreign::Host(clip(host)));
        }
        if let Some(origin) = text(ORIGIN)
            && !origin.strip_prefix("http://").is_some_and(ours)
        {
            return Err(Foreign::Origin(clip(origin)));
        }
        Ok(())
    }

    /// As [`Self::check`], for a face that shows pages and asks for no token: nothing that another site's page caused,
    /// not even a picture.
    pub(crate) fn check_site(&self, headers: &HeaderMap) -> Result<(), Foreign> {
        self.check(headers)?;
        match headers.get("sec-fetch-site").map(|value| value.to_str().unwrap_or("?")) {
            None | Some("same-origin" | "none") => Ok(()),
            Some(site) => Err(Foreign::Site(clip(site))),
        }
    }
}

pub(crate) fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn who_is_meant_and_whose_page_asks() {
        let hosts = Hosts::of(SocketAddr::from(([127, 0, 0, 1], 7871)));
        let check = |pairs: &[(&'static str, &'static str)]| hosts.check_site(&headers(pairs));
        let host = ("host", "127.0.0.1:7871");
        assert_eq!(check(&[host]), Ok(()));
        assert_eq!(check(&[("host", "LOCALHOST:7871"), ("origin", "http://localhost:7871")]), Ok(()));
        assert_eq!(check(&[host, ("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(check(&[host, ("sec-fetch-site", "none")]), Ok(()));
        assert_eq!(check(&[]), Err(Foreign::Host(String::new())));
        assert_eq!(check(&[("host", "127.0.0.1")]), Err(Foreign::Host("127.0.0.1".into())));
        assert_eq!(check(&[("host", "evil.example:7871")]), Err(Foreign::Host("evil.example:7871".into())));
        for origin in ["http://evil.example", "null", "https://127.0.0.1:7871", "http://127.0.0.1:7870"] {
            assert_eq!(check(&[host, ("origin", origin)]), Err(Foreign::Origin(origin.into())));
        }
        // Another port of this machine is another page, and the same site.
        for site in ["cross-site", "same-site", "anything"] {
            assert_eq!(check(&[host, ("sec-fetch-site", site)]), Err(Foreign::Site(site.into())));
        }
        assert_eq!(hosts.check(&headers(&[host, ("sec-fetch-site", "cross-site")])), Ok(()));
    }
}
