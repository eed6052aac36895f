//! Lists from servers: one request at a time, bounded in time and length, asked only for what has changed.

mod hops;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use thiserror::Error;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::header::{
    ACCEPT_ENCODING, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use ureq::http::{HeaderValue, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::transport::DefaultConnector;

use self::hops::Hops;
use super::text::{self, Unreadable};
use crate::policy::rebinding::is_private_address;

/// Redirects that are followed; more are loops.
const REDIRECTS_MAX: u32 = 5;

/// Longest validator that is kept, in bytes.
const VALIDATOR_BYTES_MAX: usize = 512;

/// How this program calls itself.
const AGENT: &str = concat!("heimdall-uring/", env!("CARGO_PKG_VERSION"));

/// By which a server tells whether a list has changed (RFC 9110 §8.8), as it has written them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Validators {
    pub(super) etag: Option<String>,
    pub(super) modified: Option<String>,
}

impl Validators {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| {
            let text = headers.get(name)?.to_str().ok()?;
            (text.len() <= VALIDATOR_BYTES_MAX).then(|| text.to_owned())
        };
        Self { etag: text(ETAG), modified: text(LAST_MODIFIED) }
    }
}

/// What a server has said.
#[derive(Debug)]
pub(super) enum Fetched {
    /// The list is the one that we have.
    Unchanged,
    /// The list, unpacked.
    Text(Vec<u8>, Validators),
}

/// Why there is no list. No text repeats the URL, which may hold a password.
#[derive(Debug, Error)]
pub(super) enum DownloadError {
    /// The server has something else to say.
    #[error("the server says {0}")]
    Status(StatusCode),
    /// It cannot be reached, is not believed, or takes too long.
    #[error("{0}")]
    Transport(String),
    /// What it sends cannot be read.
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
}

impl From<ureq::Error> for DownloadError {
    fn from(error: ureq::Error) -> Self {
        Self::Transport(match error {
            ureq::Error::BadUri(_) => "its URL, or one that it leads to, makes no sense".to_owned(),
            ureq::Error::RequireHttpsOnly(_) => "it leads from https to http".to_owned(),
            ureq::Error::Other(cause) => cause.to_string(),
            error => error.to_string(),
        })
    }
}

/// Asks servers for lists.
#[derive(Debug)]
pub(super) struct Downloader {
    config: Config,
    bytes_max: usize,
    /// Tells the addresses of this site and machine.
    is_private: fn(IpAddr) -> bool,
}

impl Downloader {
    /// One that waits `timeout` for a whole list, of at most `bytes_max` bytes, and believes servers for which `roots` vouch.
    pub(super) fn new(timeout: Duration, bytes_max: usize, roots: &[CertificateDer<'_>]) -> Self {
        let roots: Vec<Certificate<'static>> =
            roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(RootCerts::new_with_certs(&roots))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(timeout))
            .max_redirects(REDIRECTS_MAX)
            .http_status_as_error(false)
            .proxy(None)
            .user_agent(AGENT)
            .max_idle_connections(0)
            .build();
        Self { config, bytes_max, is_private: is_private_address }
    }

    /// Asks for the list at `url`, unless it is still the one of which the server told `known`.
    pub(super) fn fetch(&self, url: &str, known: &Validators) -> Result<Fetched, DownloadError> {
        let is_secret = url.starts_with("https:");
        let hops = Hops::new(self.is_private);
        let agent = Agent::with_parts(self.config.clone(), DefaultConnector::default(), hops);
        let mut request = agent.get(url).config().https_only(is_secret).build();
        request = request.header(ACCEPT_ENCODING, "gzip");
        for (name, text) in [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.modified)] {
            if let Some(value) = text.as_ref().and_then(|text| HeaderValue::from_str(text).ok()) {
                request = request.header(name, value);
            }
        }
        let mut response = request.call()?;
        match response.status() {
            StatusCode::NOT_MODIFIED if *known != Validators::default() => Ok(Fetched::Unchanged),
            StatusCode::OK => {
                let validators = Validators::of(response.headers());
                // The length is bounded behind the unpacking; what is packed is bounded by the time alone.
                let body = response.body_mut().with_config().limit(u64::MAX).reader();
                let text = text::read(body, 0, self.bytes_max)?;
                Ok(Fetched::Text(text, validators))
            }
            status => Err(DownloadError::Status(status)),
        }
    }
}

#[cfg(test)]
mod tests;
