//! Certificates for upstreams that speak TLS, right and wrong ones.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::ports::Directory;

/// The name in certificates that are right.
pub(crate) const NAME: &str = "dns.example";

/// Who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: Directory,
    roots: PathBuf,
}

impl Authority {
    pub(crate) fn create() -> Self {
        Self::called("root")
    }

    /// One with a name of its own.
    pub(crate) fn called(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        let directory = Directory::create();
        let roots = directory.write("roots.pem", &root);
        Self { issuer: Issuer::new(params, key), directory, roots }
    }

    /// The config of a node that trusts it and nobody else.
    pub(crate) fn config(&self) -> String {
        format!("[forward]\ntls_roots = \"{}\"", self.roots.display())
    }

    /// A file with its own certificate.
    pub(crate) fn roots(&self) -> &Path {
        &self.roots
    }

    /// A certificate for `names`, which may be addresses.
    pub(crate) fn certify(&self, names: &[&str]) -> Certified {
        self.sign(CertificateParams::new(owned(names)).unwrap())
    }

    /// One that was good some years ago.
    pub(crate) fn certify_formerly(&self, names: &[&str]) -> Certified {
        let mut params = CertificateParams::new(owned(names)).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Certified {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Certified { certificate, key }
    }

    /// Where the files for a server with `certified` lie, its key first; gone with the authority.
    pub(crate) fn files(&self, certified: &Certified) -> [PathBuf; 2] {
        let key = self.directory.write("server.key", &certified.key.serialize_pem());
        [key, self.directory.write("server.pem", &certified.certificate)]
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().copied().map(str::to_owned).collect()
}

/// A key and a certificate of it.
pub(crate) struct Certified {
    certificate: String,
    key: KeyPair,
}

impl Certified {
    /// The pin of the key, as the usual commands print it.
    pub(crate) fn pin(&self) -> String {
        let command =
            "openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64";
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        shell.stdin.take().unwrap().write_all(self.key.public_key_pem().as_bytes()).unwrap();
        let output = shell.wait_with_output().unwrap();
        let pin = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        assert_eq!(pin.len(), 44, "no openssl: run scripts/setup --tests");
        pin
    }

    /// What a server needs that shows it.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![b"dot".to_vec()];
        Arc::new(config)
    }
}
