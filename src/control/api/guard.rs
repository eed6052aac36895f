//! Who may ask what. On a Unix socket the rights of the file decide; over TCP a token does. Without one, whoever can reach
//! loopback sees figures, but commands nothing and learns no client's questions. Browsers are kept out: pages of strangers
//! may send requests to loopback, and a name that they own may lead there.

use std::hint::black_box;
use std::net::IpAddr;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};

use super::credentials::Credentials;
use super::reply::Refusal;
use crate::config::{ApiListen, Token};

/// How browsers say from where a page asks.
const FETCH_SITE: &str = "sec-fetch-site";

/// What a request needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Access {
    /// Figures, which tell nothing of any client.
    Figures,
    /// What changes the node, or tells what clients ask for.
    Control,
}

/// Decides about requests.
#[derive(Debug)]
pub(super) struct Guard {
    credentials: Credentials,
    is_socket: bool,
}

impl Guard {
    pub(super) const fn new(credentials: Credentials, listen: &ApiListen) -> Self {
        Self { credentials, is_socket: matches!(listen, ApiListen::Unix(_)) }
    }

    /// Whether whoever sends `headers` may ask anything. `authority` is the host in an absolute-form target, which counts before
    /// the Host field (RFC 9112 §3.2.2).
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn know(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), Refusal> {
        refuse_other_sites(headers)?;
        self.credentials.judge(|token| match token {
            Some(token) => {
                if shows(headers, token) {
                    return Ok(());
                }
                let text = if shown(headers).is_some() {
                    "wrong token"
                } else {
                    "a token is needed: Authorization: Bearer ..."
                };
                Err(Refusal::new(StatusCode::UNAUTHORIZED, text)
                    .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
            }
            None if self.is_socket => Ok(()),
            None => refuse_other_hosts(headers, authority),
        })
    }

    /// Whether a request that was known before, with `headers`, still has the token: that may have been exchanged since.
    pub(super) fn still_knows(&self, headers: &HeaderMap) -> bool {
        self.credentials.judge(|token| token.is_none_or(|token| shows(headers, token)))
    }

    /// Whether whoever sends `headers` may have the files of the dashboard, which tell nothing: no token is needed, and a
    /// link on another site may lead there.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn know_reader(
        &self,
        headers: &HeaderMap,
        authority: Option<&str>,
    ) -> Result<(), Refusal> {
        if !is_link(headers) {
            refuse_other_sites(headers)?;
        }
        if self.credentials.has_token() || self.is_socket {
            Ok(())
        } else {
            refuse_other_hosts(headers, authority)
        }
    }

    /// Whether a request that is known may have `access`.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn permit(&self, access: Access) -> Result<(), Refusal> {
        match access {
            Access::Control if !self.credentials.has_token() && !self.is_socket => {
                Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "this needs api.token or api.token_file in the config, or a Unix socket as api.listen",
                ))
            }
            Access::Control | Access::Figures => Ok(()),
        }
    }
}

/// The token that `headers` show.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer)
}

fn shows(headers: &HeaderMap, token: &Token) -> bool {
    shown(headers).is_some_and(|shown| is_same(shown, token.as_bytes()))
}

/// The token of `Bearer TOKEN` (RFC 6750 §2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Compares in a time that does not tell where two texts differ.
fn is_same(left: &[u8], right: &[u8]) -> bool {
    let differences = left.iter().zip(right).fold(0, |all, (left, right)| all | (left ^ right));
    black_box(differences) == 0 && left.len() == right.len()
}

/// Whether a browser follows a link to show a page of its own, not as part of another one.
fn is_link(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|told| told == value);
    is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
        && !headers.contains_key(ORIGIN)
}

/// Refuses what a page of another site has a browser send.
fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Refusal> {
    let forbidden = || Err(Refusal::new(StatusCode::FORBIDDEN, "a page of another site asks"));
    if let Some(site) = headers.get(FETCH_SITE)
        && site != "same-origin"
        && site != "none"
    {
        return forbidden();
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let authority = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
    if authority == Some(host) { Ok(()) } else { forbidden() }
}

/// Refuses names that lead to loopback without being its own (DNS rebinding).
fn refuse_other_hosts(headers: &HeaderMap, authority: Option<&str>) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_loopback(host) && hosts.next().is_none() && authority.is_none_or(is_loopback) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "without a token the host must be localhost or a loopback address",
    ))
}

/// Whether `host`, with or without a port, can only mean this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn guard(token: Option<&str>, listen: &str) -> Guard {
        let credentials = Credentials::of(token.and_then(Token::from_text));
        Guard::new(credentials, &ApiListen::from_text(listen).unwrap())
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let fields = fields.iter().map(|(name, value)| {
            (hyper::header::HeaderName::from_static(name), value.parse().unwrap())
        });
        fields.collect()
    }

    fn status(guard: &Guard, fields: &[(&'static str, &str)], access: Access) -> u16 {
        let known = guard.know(&headers(fields), None).and_then(|()| guard.permit(access));
        known.map_or_else(|refusal| refusal.into_reply().status().as_u16(), |()| 200)
    }

    #[test]
    fn token_opens_everything_and_nothing_else_does() {
        let guard = guard(Some(TOKEN), "192.0.2.1:8053");
        let with = |value: &str| {
            status(&guard, &[("host", "x"), ("authorization", value)], Access::Control)
        };
        assert_eq!(with(&format!("Bearer {TOKEN}")), 200);
        assert_eq!(with(&format!("bearer  {TOKEN} ")), 200);
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcdee",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
            TOKEN,
        ] {
            assert_eq!(with(wrong), 401, "{wrong}");
        }
        assert_eq!(status(&guard, &[("host", "127.0.0.1")], Access::Figures), 401);
    }

    #[test]
    fn loopback_without_a_token_shows_figures_to_its_own_names_only() {
        let guard = guard(None, "127.0.0.1:8053");
        for host in [
            "127.0.0.1",
            "127.0.0.1:8053",
            "localhost:8053",
            "[::1]:8053",
            "LOCALHOST",
            "127.8.8.8",
        ] {
            assert_eq!(status(&guard, &[("host", host)], Access::Figures), 200, "{host}");
            assert_eq!(status(&guard, &[("host", host)], Access::Control), 403, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8053",
            "127.0.0.1.evil.example",
            "192.0.2.1",
            "[::1",
            "[evil]",
            "localhost.evil:1",
        ] {
            assert_eq!(status(&guard, &[("host", host)], Access::Figures), 403, "{host}");
        }
        assert_eq!(status(&guard, &[], Access::Figures), 403);
        let two = {
            let mut two = headers(&[("host", "localhost")]);
            two.append("host", "evil.example".parse().unwrap());
            two
        };
        assert!(guard.know(&two, None).is_err());
        let own = headers(&[("host", "localhost")]);
        assert!(guard.know(&own, Some("[::1]:8053")).is_ok());
        for other in ["evil.example", "", "localhost@evil.example:1", "evil.example:localhost"] {
            assert!(guard.know(&own, Some(other)).is_err(), "{other}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused_whoever_they_ask() {
        let guard = guard(None, "unix:/run/api");
        assert_eq!(status(&guard, &[("host", "x")], Access::Control), 200);
        for fields in [
            [("host", "localhost:1"), ("origin", "http://evil.example")],
            [("host", "localhost:1"), ("origin", "null")],
            [("host", "localhost:1"), ("origin", "http://localhost:2")],
            [("host", "localhost:1"), ("sec-fetch-site", "cross-site")],
            [("host", "localhost:1"), ("sec-fetch-site", "same-site")],
        ] {
            assert_eq!(status(&guard, &fields, Access::Figures), 403, "{fields:?}");
        }
        let own = [
            ("host", "localhost:1"),
            ("origin", "http://localhost:1"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert_eq!(status(&guard, &own, Access::Control), 200);
    }

    #[test]
    fn dashboard_is_for_all_who_mean_this_machine_or_know_the_token() {
        let read = |guard: &Guard, fields: &[(&'static str, &str)]| {
            guard.know_reader(&headers(fields), None).is_ok()
        };
        let open = guard(None, "127.0.0.1:8053");
        let closed = guard(Some(TOKEN), "192.0.2.1:8053");
        assert!(
            read(&open, &[("host", "localhost:8053")]) && read(&closed, &[("host", "ns.example")])
        );
        assert!(!read(&open, &[("host", "evil.example")]), "a stranger's name for loopback");
        let link = [
            ("host", "localhost"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
        ];
        for (dest, is_read) in [("document", true), ("iframe", false), ("script", false)] {
            let fields = [&link[..], &[("sec-fetch-dest", dest)]].concat();
            assert_eq!(read(&open, &fields), is_read, "{dest}");
            assert_eq!(read(&closed, &fields), is_read, "{dest}");
        }
        let posted =
            [&link[..], &[("sec-fetch-dest", "document"), ("origin", "http://evil.example")]]
                .concat();
        assert!(!read(&open, &posted));
        assert_eq!(
            status(
                &open,
                &[&link[..], &[("sec-fetch-dest", "document")]].concat(),
                Access::Figures
            ),
            403
        );
    }
}
