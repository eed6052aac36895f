//! `[api]`: where an operator asks and commands a node that runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::value;

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";

/// Longest path of a Unix socket, in bytes: the kernel's, less what a name beside it needs while the socket is made.
const SOCKET_PATH_BYTES_MAX: usize = 90;

/// How long a token may be, in characters. Shorter ones can be guessed.
const TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;

/// The HTTP API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Api {
    /// Where it listens.
    pub listen: ApiListen,
    /// What requests must carry.
    pub token: Option<Token>,
    /// A file with the token.
    pub token_file: Option<PathBuf>,
    /// A PEM file with the certificate and those that vouch for it.
    pub certificate: Option<PathBuf>,
    /// A PEM file with its key.
    pub key: Option<PathBuf>,
    /// Whether it serves the dashboard.
    pub page: bool,
}

impl Default for Api {
    fn default() -> Self {
        let listen = ApiListen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 8053)));
        Self { listen, token: None, token_file: None, certificate: None, key: None, page: true }
    }
}

impl Api {
    /// Why the keys do not go together, and which they are.
    pub(super) fn flaw(&self) -> Option<(&'static [&'static str], String)> {
        if self.token.is_some() && self.token_file.is_some() {
            let text = "api.token and api.token_file are both set: one of them is the token";
            return Some((&["api.token_file", "api.token"], text.to_owned()));
        }
        if self.certificate.is_some() != self.key.is_some() {
            let text = "api.certificate and api.key go together: one of them is missing";
            return Some((&["api.certificate", "api.key"], text.to_owned()));
        }
        match &self.listen {
            ApiListen::Tcp(address) if !address.ip().is_loopback() && !self.has_token() => {
                let text = format!(
                    "api.listen = \"{address}\" is reached by others: it needs api.token or api.token_file"
                );
                Some((&["api.listen"], text))
            }
            ApiListen::Unix(_) if self.certificate.is_some() => {
                let text = "api.certificate is of no use on a Unix socket";
                Some((&["api.certificate"], text.to_owned()))
            }
            ApiListen::Off | ApiListen::Tcp(_) | ApiListen::Unix(_) => None,
        }
    }

    /// Whether requests must carry a token.
    #[must_use]
    pub const fn has_token(&self) -> bool {
        self.token.is_some() || self.token_file.is_some()
    }
}

/// Where the API listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ApiListen {
    /// Nowhere.
    Off,
    /// At an address.
    Tcp(SocketAddr),
    /// At a Unix socket.
    Unix(PathBuf),
}

impl ApiListen {
    /// `off`, an address with its port, or `unix:` and an absolute path.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Self::Off);
        }
        if let Some(path) = text.strip_prefix(UNIX) {
            let path = value::file_or(path, "")?;
            let is_short = |path: &PathBuf| path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX;
            return path.filter(is_short).map(Self::Unix);
        }
        value::listener(text).map(Self::Tcp)
    }
}

impl std::fmt::Display for ApiListen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// A secret that requests carry. Never printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Token(String);

impl Token {
    /// A token of 16 to 256 visible ASCII characters.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let is_visible = text.bytes().all(|octet| octet.is_ascii_graphic());
        (is_visible && TOKEN_LENGTHS.contains(&text.len())).then(|| Self(text.to_owned()))
    }

    /// The secret itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The secret as it goes into a request.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, File};
    use super::*;

    fn load(text: &str) -> Result<Api, String> {
        let text = format!("[api]\n{text}");
        let file = Some(File { name: "node.toml", text: &text });
        Config::load(file, [], &[]).map(|config| config.api).map_err(|error| error.to_string())
    }

    #[test]
    fn listen_takes_addresses_sockets_and_off() {
        for (text, written) in [
            ("off", "off"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:8053", "[::1]:8053"),
            ("unix:/run/x/api.sock", "unix:/run/x/api.sock"),
        ] {
            assert_eq!(ApiListen::from_text(text).unwrap().to_string(), written);
        }
        let long = format!("unix:/{}", "x".repeat(90));
        for text in ["", "on", "127.0.0.1", "unix:", "unix:api", "unix:/run/", "host:80", &long] {
            assert_eq!(ApiListen::from_text(text), None, "{text}");
        }
    }

    #[test]
    fn whoever_can_be_reached_needs_a_token() {
        let error = load("listen = '192.0.2.1:8053'").unwrap_err();
        assert!(error.contains("api.listen = \"192.0.2.1:8053\" is reached by others"), "{error}");
        load("listen = '192.0.2.1:8053'\ntoken_file = '/etc/token'").unwrap();
        load("listen = '[::1]:8053'").unwrap();
        load("listen = 'unix:/run/api.sock'").unwrap();
        for lines in [
            "certificate = '/etc/cert.pem'",
            "token = '0123456789abcdef'\ntoken_file = '/etc/token'",
            "listen = 'unix:/run/a'\ncertificate = '/c'\nkey = '/k'",
        ] {
            assert!(load(lines).unwrap_err().contains("api."), "{lines}");
        }
    }

    #[test]
    fn token_is_never_shown() {
        let api = load("token = '0123456789abcdef'").unwrap();
        assert!(!format!("{api:?}").contains("0123456789abcdef"));
        let error = load("token = 'too-short'").unwrap_err();
        assert!(error.contains("api.token") && !error.contains("too-short"), "{error}");
    }
}
