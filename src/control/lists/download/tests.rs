//! Servers of lists, good and bad ones, on loopback addresses.

use std::io::Write;
use std::net::TcpListener;

use flate2::Compression;
use flate2::write::GzEncoder;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

use super::*;
use crate::control::lists::fixture::{Server, respond};

const PATIENCE: Duration = Duration::from_secs(20);
const BYTES_MAX: usize = 1 << 20;

fn downloader() -> Downloader {
    Downloader::new(PATIENCE, BYTES_MAX, &[])
}

fn fetch(server: &Server) -> Result<Fetched, DownloadError> {
    downloader().fetch(&server.url("/list"), &Validators::default())
}

fn text(fetched: Fetched) -> (Vec<u8>, Validators) {
    match fetched {
        Fetched::Text(text, validators) => (text, validators),
        Fetched::Unchanged => panic!("it has changed"),
    }
}

#[test]
fn list_comes_with_its_validators_and_is_asked_for_by_them() {
    const DATE: &str = "Fri, 20 Nov 2026 10:00:00 GMT";
    let server = Server::start(|head, out| {
        let head = head.to_ascii_lowercase();
        if head.contains("if-none-match: \"one\"\r\n") {
            respond(out, "304 Not Modified", "", b"");
        } else {
            let headers = format!("ETag: \"one\"\r\nLast-Modified: {DATE}\r\n");
            respond(out, "200 OK", &headers, b"ads.example\n");
        }
    });
    let (octets, validators) = text(fetch(&server).unwrap());
    assert_eq!(octets, b"ads.example\n");
    let expected = Validators { etag: Some("\"one\"".into()), modified: Some(DATE.into()) };
    assert_eq!(validators, expected);
    let again = downloader().fetch(&server.url("/list"), &validators).unwrap();
    assert!(matches!(again, Fetched::Unchanged));
    let [first, second] = &server.heads()[..] else { panic!("two requests") };
    let lower = second.to_ascii_lowercase();
    assert!(
        lower.contains(&format!("if-modified-since: {}", DATE.to_ascii_lowercase())),
        "{second}"
    );
    assert!(first.to_ascii_lowercase().contains("accept-encoding: gzip\r\n"), "{first}");
    assert!(first.contains(AGENT) && !first.contains("If-"), "{first}");
}

#[test]
fn packed_list_is_unpacked() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"ads.example\n").unwrap();
    let packed = encoder.finish().unwrap();
    let server =
        Server::start(move |_, out| respond(out, "200 OK", "Content-Encoding: gzip\r\n", &packed));
    assert_eq!(text(fetch(&server).unwrap()).0, b"ads.example\n");
}

#[test]
fn bomb_and_endless_list_are_given_up_at_the_limit() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![b'a'; 64 << 20]).unwrap();
    let bomb = encoder.finish().unwrap();
    let server =
        Server::start(move |_, out| respond(out, "200 OK", "Content-Encoding: gzip\r\n", &bomb));
    let error = fetch(&server).unwrap_err();
    assert!(matches!(error, DownloadError::Unreadable(Unreadable::TooLong(BYTES_MAX))), "{error}");
    let endless = Server::start(|_, out| {
        let _ = out.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        while out.write_all(&[b'a'; 4_096]).is_ok() {}
    });
    let error = fetch(&endless).unwrap_err();
    assert!(matches!(error, DownloadError::Unreadable(Unreadable::TooLong(BYTES_MAX))), "{error}");
}

#[test]
fn server_that_takes_its_time_is_not_waited_for() {
    let server = Server::start(|_, out| {
        let _ = out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        // A byte now and then keeps a connection alive, not a download.
        while out.write_all(b"a").and_then(|()| out.flush()).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let hasty = Downloader::new(Duration::from_millis(300), BYTES_MAX, &[]);
    let error = hasty.fetch(&server.url("/"), &Validators::default()).unwrap_err();
    assert!(error.to_string().contains("timeout"), "{error}");
}

#[test]
fn what_is_no_whole_list_is_an_error() {
    for status in
        ["500 Internal Server Error", "404 Not Found", "204 No Content", "206 Partial Content"]
    {
        let server = Server::start(move |_, out| respond(out, status, "", b"ads.example\n"));
        let error = fetch(&server).unwrap_err().to_string();
        assert!(error.starts_with("the server says ") && error.contains(&status[..3]), "{error}");
    }
    let unasked = Server::start(|_, out| respond(out, "304 Not Modified", "", b""));
    assert!(matches!(fetch(&unasked), Err(DownloadError::Status(_))));
    let torn = Server::start(|_, out| {
        let _ = out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nads.example\n");
    });
    assert!(fetch(&torn).is_err());
    let nonsense = Server::start(|_, out| drop(out.write_all(b"\x00\x01 what?\r\n\r\n")));
    assert!(fetch(&nonsense).is_err());
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(downloader().fetch(&format!("http://{nobody}/"), &Validators::default()).is_err());
}

#[test]
fn redirects_are_followed_but_not_for_ever_and_never_into_a_file() {
    let good = Server::start(|_, out| respond(out, "200 OK", "", b"ads.example\n"));
    let location = format!("Location: {}\r\n", good.url("/there"));
    let server = Server::start(move |_, out| respond(out, "302 Found", &location, b""));
    assert_eq!(text(fetch(&server).unwrap()).0, b"ads.example\n");
    let circle = Server::start(|_, out| respond(out, "302 Found", "Location: /list\r\n", b""));
    assert!(fetch(&circle).is_err());
    assert_eq!(circle.heads().len(), 1 + REDIRECTS_MAX as usize);
    let path = std::env::temp_dir().join(format!("heimdall-redirect-{}", std::process::id()));
    std::fs::write(&path, "ads.example\n").unwrap();
    let location = format!("Location: file://{}\r\n", path.display());
    let server = Server::start(move |_, out| respond(out, "302 Found", &location, b""));
    let outcome = fetch(&server);
    std::fs::remove_file(&path).unwrap();
    assert!(outcome.is_err());
}

#[test]
fn redirects_lead_from_public_to_private_addresses_never() {
    let inside = TcpListener::bind("127.0.0.3:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let location = format!("Location: http://{}/admin\r\n", inside.local_addr().unwrap());
    let server = Server::start(move |_, out| respond(out, "302 Found", &location, b""));
    let is_inside = |address: IpAddr| address == IpAddr::from([127, 0, 0, 3]);
    let guarded = Downloader { is_private: is_inside, ..downloader() };
    let error = guarded.fetch(&server.url("/list"), &Validators::default()).unwrap_err();
    assert_eq!(error.to_string(), "it leads from a public address to a private one");
    assert_eq!(inside.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    // The operator's own server may be anywhere, and lead anywhere.
    let ours = Server::start(|_, out| respond(out, "200 OK", "", b"ads.example\n"));
    let location = format!("Location: {}\r\n", ours.url("/there"));
    let server = Server::start(move |_, out| respond(out, "302 Found", &location, b""));
    assert_eq!(text(fetch(&server).unwrap()).0, b"ads.example\n");
}

#[test]
fn password_goes_to_its_server_and_nowhere_else() {
    let elsewhere = Server::start(|_, out| respond(out, "200 OK", "", b"ads.example\n"));
    let location =
        format!("Location: {}\r\n", elsewhere.url("/").replace("127.0.0.1", "localhost"));
    let server = Server::start(move |_, out| respond(out, "302 Found", &location, b""));
    let url = format!("http://me:secret@{}/list", server.address);
    downloader().fetch(&url, &Validators::default()).unwrap();
    let [head] = &server.heads()[..] else { panic!("one request") };
    // "me:secret" in Base64.
    assert!(head.to_ascii_lowercase().contains("authorization: basic"), "{head}");
    assert!(head.contains("bWU6c2VjcmV0"), "{head}");
    let [head] = &elsewhere.heads()[..] else { panic!("one request") };
    assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
    let failing =
        Server::start(|_, out| respond(out, "302 Found", "Location: http://me:secret@[\r\n", b""));
    let error = fetch(&failing).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

/// An authority and a server with a certificate of it for `name`.
fn over_tls(name: &str) -> (CertificateDer<'static>, Server) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
        )
        .unwrap();
    let script = |head: &str, out: &mut dyn Write| {
        if head.starts_with("GET /away") {
            respond(out, "302 Found", "Location: http://127.0.0.1:1/\r\n", b"");
        } else {
            respond(out, "200 OK", "", b"ads.example\n");
        }
    };
    (root, Server::listen(Some(Arc::new(config)), Arc::new(script)))
}

#[test]
fn only_servers_for_which_roots_vouch_are_believed() {
    let (root, server) = over_tls("localhost");
    let port = server.address.port();
    let fetch = |host: &str, path: &str, roots: &[CertificateDer<'_>]| {
        let downloader = Downloader::new(PATIENCE, BYTES_MAX, roots);
        downloader.fetch(&format!("https://{host}:{port}{path}"), &Validators::default())
    };
    let roots = [root];
    assert_eq!(text(fetch("localhost", "/", &roots).unwrap()).0, b"ads.example\n");
    let (stranger, _) = over_tls("localhost");
    for (host, roots) in [("127.0.0.1", &roots[..]), ("localhost", &[stranger]), ("localhost", &[])]
    {
        let error = fetch(host, "/", roots).unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
    }
    let error = fetch("localhost", "/away", &roots).unwrap_err().to_string();
    assert!(error.contains("from https to http"), "{error}");
}
