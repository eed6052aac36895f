//! Who an upstream must prove to be over TLS (RFC 8310 §5), and the sessions that its connections take up again.
//!
//! Each authentication has a configuration and with it tickets of its own: a session that began under one is never
//! taken up under another, which would skip its check.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ahash::RandomState;
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, OtherError,
    RootCertStore, SignatureScheme,
};
use thiserror::Error;

use crate::config::{Authentication, PIN_BYTES, Protocol, Upstream};

/// The protocol's name in the handshake (RFC 7858 §3.1; IANA's registry of ALPN IDs).
const ALPN: &[u8] = b"dot";

/// Where the roots are that certificates of upstreams must lead to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Roots {
    /// Where this system keeps its own.
    System,
    /// In this PEM file alone.
    File(PathBuf),
}

/// Why upstreams could not be authenticated. For the operator.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The system has none.
    #[error(
        "upstream {upstream}: this system has no root certificates that could vouch for it{}: install some \
         (Debian: ca-certificates), name a PEM file (forward.tls_roots), or pin the upstream's key",
        in_brackets(.causes)
    )]
    NoRoots {
        /// An upstream that needs them.
        upstream: Upstream,
        /// What went wrong while looking.
        causes: Vec<String>,
    },
    /// The operator's file cannot be read.
    #[error("forward.tls_roots: {}: {cause}: expected certificates of roots in PEM", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A certificate could never carry the name.
    #[error(
        "upstream {0}: its name is none that a certificate can carry: expected a host name such as dns.example"
    )]
    Name(Upstream),
}

fn in_brackets(causes: &[String]) -> String {
    if causes.is_empty() { String::new() } else { format!(" ({})", causes.join("; ")) }
}

/// The roots that the process trusts; loaded once, shared by all cores.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    /// Loads `roots`, if any of `upstreams` needs them.
    ///
    /// # Errors
    /// [`TrustError`], when an upstream could not be authenticated for want of roots or of a possible name.
    pub fn load(roots: &Roots, upstreams: &[Upstream]) -> Result<Self, TrustError> {
        for upstream in upstreams {
            if let Protocol::Tls(authentication) = &upstream.protocol {
                server_name(authentication, upstream.address.ip())
                    .ok_or_else(|| TrustError::Name(upstream.clone()))?;
            }
        }
        let store = match (upstreams.iter().find(|upstream| needs_roots(upstream)), roots) {
            (None, _) => RootCertStore::empty(),
            (Some(_), Roots::File(path)) => of_file(path)?,
            (Some(upstream), Roots::System) => of_system(upstream)?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Self { roots: Arc::new(store), provider })
    }

    /// Whether both trust the same roots.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.roots.roots == other.roots.roots
    }

    /// A configuration with no sessions yet, for upstreams that are to be authenticated this way.
    fn configure(&self, authentication: &Authentication) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS 1.2 and 1.3");
        let by_key = authentication.is_opportunistic || !authentication.pins.is_empty();
        let builder = if by_key {
            let pins = authentication.pins.clone();
            let algorithms = self.provider.signature_verification_algorithms;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(KeyVerifier { pins, algorithms }))
        } else {
            builder.with_root_certificates(Arc::clone(&self.roots))
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config
    }
}

fn needs_roots(upstream: &Upstream) -> bool {
    matches!(&upstream.protocol, Protocol::Tls(Authentication { pins, is_opportunistic: false, .. })
        if pins.is_empty())
}

/// Whom the certificate must name where roots vouch for it. Unless it is an address (RFC 6066 §3), SNI says it in any case.
fn server_name(authentication: &Authentication, address: IpAddr) -> Option<ServerName<'static>> {
    match &authentication.name {
        Some(name) => ServerName::try_from(name.clone()).ok(),
        None => Some(ServerName::from(address)),
    }
}

fn of_file(path: &Path) -> Result<RootCertStore, TrustError> {
    let fail = |cause: String| TrustError::File { path: path.to_owned(), cause };
    let mut store = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| fail(error.to_string()))?;
    for (certificate, number) in certificates.zip(1..) {
        let certificate = certificate.map_err(|error| fail(error.to_string()))?;
        let added = store.add(certificate);
        added.map_err(|error| fail(format!("certificate {number} is no root ({error})")))?;
    }
    if store.is_empty() { Err(fail("no certificate in it".to_owned())) } else { Ok(store) }
}

fn of_system(upstream: &Upstream) -> Result<RootCertStore, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Systems carry roots that nobody can use any more: the others will do.
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        let causes = found.errors.iter().map(ToString::to_string).collect();
        return Err(TrustError::NoRoots { upstream: upstream.clone(), causes });
    }
    Ok(store)
}

/// One core's sessions with its upstreams.
#[derive(Debug)]
pub(super) struct Sessions {
    trust: Trust,
    configs: RefCell<HashMap<Authentication, Arc<ClientConfig>, RandomState>>,
}

impl Sessions {
    pub(super) fn new(trust: Trust) -> Self {
        Self { trust, configs: RefCell::default() }
    }

    /// Begins a session with the upstream at `address`, or takes one up again.
    ///
    /// # Errors
    /// The name is none that a certificate can carry ([`Trust::load`] would have said so).
    pub(super) fn begin(
        &self,
        authentication: &Authentication,
        address: IpAddr,
    ) -> Result<ClientConnection, CertificateError> {
        let name = server_name(authentication, address).ok_or(CertificateError::NotValidForName)?;
        let mut configs = self.configs.borrow_mut();
        if !configs.contains_key(authentication) {
            let config = Arc::new(self.trust.configure(authentication));
            configs.insert(authentication.clone(), config);
        }
        let config = Arc::clone(&configs[authentication]);
        Ok(ClientConnection::new(config, name).expect("the configuration has suites and versions"))
    }
}

/// Knows an upstream by its key alone: one of `pins` if there are any (RFC 7858 §4.2), otherwise any key, which keeps
/// out those who only listen (RFC 7858 §4.1). In both cases the upstream must prove that the key is its own.
#[derive(Debug)]
struct KeyVerifier {
    pins: Vec<[u8; PIN_BYTES]>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The key of the certificate is none of those pinned.
#[derive(Debug)]
struct UnknownKey;

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its key is none of those pinned")
    }
}

impl std::error::Error for UnknownKey {}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        let digest = digest(&SHA256, &key);
        let is_known = |pin: &[u8; PIN_BYTES]| pin == digest.as_ref();
        if self.pins.is_empty() || self.pins.iter().any(is_known) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::Other(OtherError(Arc::new(UnknownKey))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
