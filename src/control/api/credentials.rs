//! What requests are checked by, and what shows that it is this node: a token, a certificate and its key. Their files may be
//! renewed while the node runs; what is read anew takes the place of what was, for the connections that come then.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use super::ApiError;
use crate::config::{self, Token};
use crate::sys::file;

/// Longest token file that is read, in bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 1_024;

/// Longest file of a certificate or a key that is read, in bytes.
const PEM_FILE_BYTES_MAX: u64 = 1 << 20;

/// The bit of a file's mode by which it is read by those who are neither its owner nor of its group.
const OTHERS_READ: u32 = 0o004;

/// Shared by the API, which goes by it, and whoever reads it anew.
#[derive(Clone, Debug)]
pub struct Credentials(Arc<RwLock<Arc<Papers>>>);

/// What was read at one time.
pub struct Papers {
    token: Option<Token>,
    tls: Option<Tls>,
}

impl std::fmt::Debug for Papers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Papers(not shown)")
    }
}

/// A certificate with its key, ready, and as it was read.
struct Tls {
    acceptor: TlsAcceptor,
    chain: Vec<CertificateDer<'static>>,
    secret: Vec<u8>,
}

impl Credentials {
    /// Reads what `section` names.
    ///
    /// # Errors
    /// [`ApiError`], with the key at fault.
    pub fn read(section: &config::Api) -> Result<Self, ApiError> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(Papers::read(section)?)))))
    }

    /// Goes by `papers` from now on, and says what of them is new.
    pub fn adopt(&self, papers: Papers) -> Vec<&'static str> {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_same_tls = match (&held.tls, &papers.tls) {
            (Some(old), Some(new)) => old.chain == new.chain && old.secret == new.secret,
            (None, None) => true,
            _ => false,
        };
        let news = [("token", held.token == papers.token), ("certificate", is_same_tls)];
        *held = Arc::new(papers);
        news.into_iter().filter(|(_, is_same)| !is_same).map(|(what, _)| what).collect()
    }

    fn now(&self) -> Arc<Papers> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether requests must carry a token.
    pub(super) fn has_token(&self) -> bool {
        self.now().token.is_some()
    }

    /// What `judge` makes of the token.
    pub(super) fn judge<T>(&self, judge: impl FnOnce(Option<&Token>) -> T) -> T {
        judge(self.now().token.as_ref())
    }

    /// What shakes hands over TLS, if that is spoken.
    pub(super) fn acceptor(&self) -> Option<TlsAcceptor> {
        self.now().tls.as_ref().map(|tls| tls.acceptor.clone())
    }

    /// With this token, and without TLS.
    #[cfg(test)]
    pub(super) fn of(token: Option<Token>) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(Papers { token, tls: None }))))
    }
}

impl Papers {
    /// Reads what `section` names.
    ///
    /// # Errors
    /// [`ApiError`], with the key at fault.
    pub fn read(section: &config::Api) -> Result<Self, ApiError> {
        Ok(Self { token: token_of(section)?, tls: tls_of(section)? })
    }
}

/// The token that requests must carry.
///
/// # Errors
/// [`ApiError::TokenFile`].
pub fn token_of(section: &config::Api) -> Result<Option<Token>, ApiError> {
    let Some(path) = &section.token_file else { return Ok(section.token.clone()) };
    let fail = |cause: String| ApiError::TokenFile { path: path.clone(), cause };
    let text = read_bounded(path, TOKEN_FILE_BYTES_MAX).and_then(|octets| {
        String::from_utf8(octets).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    });
    let text = text.map_err(|cause| fail(cause.to_string()))?;
    let token = Token::from_text(text.trim_ascii());
    token
        .map(Some)
        .ok_or_else(|| fail("expected one line of 16 to 256 visible ASCII characters".to_owned()))
}

/// What an operator should know: files with secrets of the API that every user of the machine may read.
#[must_use]
pub fn exposed(section: &config::Api) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    if section.listen == config::ApiListen::Off {
        return Vec::new();
    }
    let secrets = [("api.token_file", &section.token_file), ("api.key", &section.key)];
    let told = |(key, path): (&str, &Option<PathBuf>)| {
        let path = path.as_ref()?;
        // What cannot be opened is told as an error.
        let mode = file::open_without_waiting(path).ok()?.metadata().ok()?.mode() & 0o7777;
        let path = path.display();
        (mode & OTHERS_READ != 0).then(|| {
            format!(
                "{key}: {path}: every user of this machine may read it (mode {mode:04o}): chmod o= {path}"
            )
        })
    };
    secrets.into_iter().filter_map(told).collect()
}

/// What stands in the file at `path`, up to a length. A pipe is not waited for.
fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut octets = Vec::new();
    file::open_without_waiting(path)?.take(bytes_max).read_to_end(&mut octets)?;
    Ok(octets)
}

fn tls_of(section: &config::Api) -> Result<Option<Tls>, ApiError> {
    let (Some(certificate), Some(key)) = (&section.certificate, &section.key) else {
        return Ok(None);
    };
    let fail = |name: &'static str, path: &Path, cause: String| ApiError::Tls {
        key: name,
        path: path.to_owned(),
        cause,
    };
    let of_certificate = |cause: String| fail("api.certificate", certificate, cause);
    let text = read_bounded(certificate, PEM_FILE_BYTES_MAX);
    let text = text.map_err(|error| of_certificate(error.to_string()))?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| of_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(of_certificate("no certificate in it".to_owned()));
    }
    let of_key = |cause: String| fail("api.key", key, cause);
    let text = read_bounded(key, PEM_FILE_BYTES_MAX);
    let text = text.map_err(|error| of_key(error.to_string()))?;
    let secret = PrivateKeyDer::from_pem_slice(&text).map_err(|error| of_key(error.to_string()))?;
    let (kept_chain, kept_secret) = (chain.clone(), secret.secret_der().to_vec());
    let provider = crypto::ring::default_provider();
    let mut tls = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| of_key(error.to_string()))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    Ok(Some(Tls { acceptor, chain: kept_chain, secret: kept_secret }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipe_without_a_writer_is_no_token_and_nobody_waits_for_it() {
        let path = std::env::temp_dir().join(format!("heimdall-pipe-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let section = config::Api { token_file: Some(path.clone()), ..config::Api::default() };
        let token = token_of(&section);
        let tls = config::Api {
            certificate: Some(path.clone()),
            key: Some(path.clone()),
            ..config::Api::default()
        };
        let tls = tls_of(&tls).map(|_| ());
        std::fs::remove_file(&path).unwrap();
        assert!(token.unwrap_err().to_string().contains("expected one line"));
        assert!(tls.unwrap_err().to_string().contains("no certificate in it"));
    }

    #[test]
    fn what_is_new_is_told_and_holds_for_all_who_share_it() {
        let token = |text: &str| Token::from_text(text);
        let papers = |text: &str| Papers { token: token(text), tls: None };
        let credentials = Credentials::of(token("0123456789abcdef"));
        let shared = credentials.clone();
        assert_eq!(credentials.adopt(papers("0123456789abcdef")), [""; 0]);
        assert_eq!(credentials.adopt(papers("fedcba9876543210")), ["token"]);
        assert!(shared.judge(|held| held == token("fedcba9876543210").as_ref()));
        assert!(!format!("{shared:?}").contains("fedcba"));
    }

    #[test]
    fn secrets_that_everybody_may_read_are_told() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::temp_dir().join(format!("heimdall-exposed-{}", std::process::id()));
        std::fs::write(&path, "0123456789abcdef").unwrap();
        let section = config::Api {
            token_file: Some(path.clone()),
            key: Some("/nowhere/key".into()),
            ..config::Api::default()
        };
        let told = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            exposed(&section)
        };
        let (open, narrow, own) = (told(0o644), told(0o640), told(0o600));
        std::fs::remove_file(&path).unwrap();
        assert!(narrow.is_empty() && own.is_empty(), "{narrow:?} {own:?}");
        let [open] = &open[..] else { panic!("{open:?}") };
        assert!(open.starts_with("api.token_file: ") && open.contains("(mode 0644)"), "{open}");
        let off = config::Api { listen: config::ApiListen::Off, ..section };
        assert!(exposed(&off).is_empty());
    }
}
