//! The same over TLS: who is believed, who is not, and that sessions are taken up again.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData as _};
use ring::digest::{SHA256, digest};
use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use super::*;
use crate::config::PIN_BYTES;

/// The name that the server's certificate carries, beside its address.
const NAME: &str = "dns.example";

/// A root, and a certificate that it vouches for.
struct Identity {
    root: Vec<u8>,
    certified: CertifiedKey,
    pin: [u8; PIN_BYTES],
}

impl Identity {
    fn create() -> Self {
        Self::of(&[NAME, "127.0.0.1"])
    }

    fn of(names: &[&str]) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate().unwrap();
        let root = params.self_signed(&root_key).unwrap().pem().into_bytes();
        let issuer = Issuer::new(params, root_key);
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().copied().map(str::to_owned).collect();
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let pin = digest(&SHA256, &key.subject_public_key_info()).as_ref().try_into().unwrap();
        let certified = CertifiedKey::new(vec![leaf.der().clone()], signing(&key));
        Self { root, certified, pin }
    }

    /// The root as a file, which is gone with the directory.
    fn roots(&self) -> (Roots, Scratch) {
        let scratch = Scratch::create();
        let path = scratch.0.join("roots.pem");
        fs::write(&path, &self.root).unwrap();
        (Roots::File(path), scratch)
    }

    /// Someone who shows this certificate and has another key.
    fn stolen(&self) -> CertifiedKey {
        CertifiedKey::new(self.certified.cert.clone(), signing(&KeyPair::generate().unwrap()))
    }
}

fn signing(key: &KeyPair) -> Arc<dyn rustls::sign::SigningKey> {
    any_supported_type(&PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap()
}

/// A directory until it is dropped.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn create() -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let name = format!("streams-{:016x}", u64::from_be_bytes(random));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Shows one certificate to all who call it by the right name or by none.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_dot = hello.alpn().is_some_and(|mut ids| ids.any(|id| id == b"dot"));
        (is_dot && hello.server_name().is_none_or(|name| name == NAME)).then(|| Arc::clone(&self.0))
    }
}

/// A server that shows `certified` on `count` connections and talks on each as it is told, if the client lets it.
fn secured(
    count: usize,
    version: &'static SupportedProtocolVersion,
    certified: &CertifiedKey,
    mut talk: impl FnMut(usize, &mut dyn Talk) + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shown(Arc::new(certified.clone()))));
    config.alpn_protocols = vec![b"dot".to_vec()];
    let config = Arc::new(config);
    server(count, move |number, mut stream| {
        let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
        while tls.is_handshaking() {
            if tls.complete_io(&mut stream).is_err() {
                return;
            }
        }
        assert_eq!(tls.alpn_protocol(), Some(&b"dot"[..]));
        talk(number, &mut StreamOwned::new(tls, stream));
    })
}

fn tls(address: SocketAddr, authentication: Authentication) -> Upstream {
    Upstream { address, protocol: Protocol::Tls(authentication) }
}

fn named(name: &str) -> Authentication {
    Authentication { name: Some(name.to_owned()), ..Authentication::default() }
}

fn pinned(pin: [u8; PIN_BYTES]) -> Authentication {
    Authentication { pins: vec![[0; PIN_BYTES], pin], ..Authentication::default() }
}

fn opportunistic() -> Authentication {
    Authentication { is_opportunistic: true, ..Authentication::default() }
}

/// Whether an upstream that shows `certified` is believed under `authentication`.
fn is_believed(roots: &Roots, certified: &CertifiedKey, authentication: Authentication) -> bool {
    let (address, served) = secured(1, &TLS13, certified, |_, stream| answer_all(stream));
    let counters = run_with(roots, async move |streams| {
        let upstream = tls(address, authentication);
        let answer = streams.exchange(&upstream, &query(1)).await;
        assert!(answer == UNREACHABLE || answer == Ok(reply(&query(1))), "{answer:?}");
    });
    served.join().unwrap();
    let StreamCounters { opened, certificates_refused, .. } = &counters.tls;
    assert_eq!(opened.value() + certificates_refused.value(), 1);
    assert_eq!(counters.responses.value(), opened.value());
    opened.value() == 1
}

#[test]
fn certificate_must_come_from_a_trusted_root_and_carry_name_or_address() {
    let (right, stranger) = (Identity::create(), Identity::create());
    let (roots, _scratch) = right.roots();
    assert!(is_believed(&roots, &right.certified, named(NAME)));
    assert!(is_believed(&roots, &right.certified, Authentication::default()), "by address");
    assert!(!is_believed(&roots, &stranger.certified, named(NAME)));
    assert!(!is_believed(&roots, &stranger.certified, Authentication::default()));
    assert!(!is_believed(&roots, &right.stolen(), named(NAME)));
    assert!(!is_believed(&roots, &right.certified, named("127.0.0.2")), "an address as name");
}

#[test]
fn certificate_for_another_name_is_refused() {
    let (right, other) = (Identity::create(), Identity::of(&["other.example"]));
    let (roots, _scratch) = right.roots();
    let Roots::File(path) = &roots else { panic!("a file") };
    fs::write(path, [&right.root[..], &other.root].concat()).unwrap();
    assert!(!is_believed(&roots, &other.certified, named(NAME)));
    assert!(!is_believed(&roots, &other.certified, Authentication::default()));
    assert!(is_believed(&roots, &right.certified, named(NAME)), "two roots in one file");
}

#[test]
fn pinned_key_is_believed_and_no_other() {
    let (right, other) = (Identity::create(), Identity::create());
    assert!(is_believed(&Roots::System, &right.certified, pinned(right.pin)));
    assert!(!is_believed(&Roots::System, &right.certified, pinned(other.pin)));
    assert!(!is_believed(&Roots::System, &right.stolen(), pinned(right.pin)), "key not proven");
    let (roots, _scratch) = right.roots();
    assert!(!is_believed(&roots, &right.certified, pinned(other.pin)), "a root does not help");
}

#[test]
fn opportunistic_believes_everyone_who_has_the_key_of_the_certificate() {
    let anyone = Identity::create();
    assert!(is_believed(&Roots::System, &anyone.certified, opportunistic()));
    assert!(!is_believed(&Roots::System, &anyone.stolen(), opportunistic()));
}

#[test]
fn sessions_are_taken_up_again_but_not_under_another_authentication() {
    for version in [&TLS12, &TLS13] {
        let identity = Identity::create();
        let (roots, _scratch) = identity.roots();
        let (address, served) = secured(5, version, &identity.certified, |_, stream| {
            let query = receive(stream).unwrap();
            send(stream, &reply(&query));
        });
        let pin = identity.pin;
        let counters = run_with(&roots, async move |streams| {
            let mut under = opportunistic();
            under.name = Some(NAME.to_owned());
            let by_key = Authentication { name: Some(NAME.to_owned()), ..pinned(pin) };
            // The last takes up the session of the second: they have the same name, and the same proof of it.
            for authentication in [under, named(NAME), by_key, named(NAME), named(NAME)] {
                let upstream = tls(address, authentication);
                let answer = streams.exchange(&upstream, &query(1)).await;
                assert_eq!(answer, Ok(reply(&query(1))));
                let counters = &streams.core.upstream_counters.tls;
                until(|| counters.connections.value() == 0).await;
            }
        });
        assert_eq!((counters.tls.opened.value(), counters.tls.resumed.value()), (5, 2));
        served.join().unwrap();
    }
}

#[test]
fn thousand_queries_go_over_one_tls_connection_and_its_death_is_survived() {
    let identity = Identity::create();
    let (address, served) = secured(2, &TLS13, &identity.certified, |number, stream| {
        if number > 0 {
            return answer_all(stream);
        }
        for _ in 0..600 {
            let query = receive(stream).unwrap();
            send(stream, &reply(&query));
        }
    });
    let counters = run(async move |streams| {
        let upstream = tls(address, pinned(identity.pin));
        assert_eq!(streams.exchange(&upstream, &query(0)).await, Ok(reply(&query(0))));
        let asked: Vec<_> = (0..1000).map(query).collect();
        let mut asking = Vec::new();
        for query in &asked {
            let mut exchange = Box::pin(streams.exchange(&upstream, query));
            assert_eq!(poll_once(&mut exchange).await, None);
            asking.push(exchange);
        }
        for (number, asking) in asking.into_iter().enumerate() {
            assert_eq!(asking.await, Ok(reply(&query(number))));
        }
    });
    let StreamCounters { queries, resent, opened, .. } = &counters.tls;
    assert_eq!((queries.value(), opened.value()), (1001 + resent.value(), 2));
    // How many answers the end of the first connection took with it is up to the kernel.
    assert!(resent.value() >= 401, "{}", resent.value());
    served.join().unwrap();
}

#[test]
fn server_without_tls_is_a_failed_handshake() {
    let (address, served) = server(1, |_, stream| {
        let mut hello = [0; 64];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let counters = run(async move |streams| {
        let upstream = tls(address, opportunistic());
        assert_eq!(streams.exchange(&upstream, &query(1)).await, UNREACHABLE);
    });
    let StreamCounters { handshakes_failed, certificates_refused, opened, .. } = &counters.tls;
    let counted = [handshakes_failed, certificates_refused, opened].map(|count| count.value());
    assert_eq!(counted, [1, 0, 0]);
    served.join().unwrap();
}

#[test]
fn where_cleartext_will_do_nobody_waits_long_for_tls() {
    // Connections are made by the kernel, and then nobody speaks on them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = tls(listener.local_addr().unwrap(), opportunistic());
    run(async move |streams| {
        let counters = &streams.core.upstream_counters;
        assert_eq!(streams.exchange(&upstream, &query(1)).await, UNREACHABLE);
        // From now on at once, while the handshake has not even failed yet.
        assert_eq!(poll_once(streams.exchange(&upstream, &query(2))).await, Some(UNREACHABLE));
        let failed = counters.tls.handshakes_failed.value();
        assert_eq!((failed, counters.tls.connections.value()), (0, 1));
        // And also by those who cause the next try.
        until(|| counters.tls.handshakes_failed.value() == 1).await;
        let line = streams.line(&upstream).unwrap();
        until(|| !line.backoff.get().forbids(streams.core.clock.monotonic())).await;
        assert_eq!(poll_once(streams.exchange(&upstream, &query(3))).await, Some(UNREACHABLE));
        assert_eq!(counters.tls.connections.value(), 1);
    });
}

#[test]
fn tls_that_comes_back_is_used_again_where_cleartext_will_do() {
    let identity = Identity::create();
    let (address, served) = secured(1, &TLS13, &identity.certified, |_, stream| answer_all(stream));
    run(async move |streams| {
        let upstream = tls(address, opportunistic());
        streams.line(&upstream).unwrap().is_in_doubt.set(true);
        assert_eq!(streams.exchange(&upstream, &query(1)).await, UNREACHABLE);
        until(|| streams.core.upstream_counters.tls.opened.value() == 1).await;
        assert_eq!(streams.exchange(&upstream, &query(2)).await, Ok(reply(&query(2))));
    });
    served.join().unwrap();
}

#[test]
fn same_address_in_clear_and_over_tls_is_two_connections() {
    let (address, served) = server(2, |_, stream| {
        let mut first = [0; 2];
        stream.read_exact(&mut first).unwrap();
        if first != [22, 3] {
            let mut asked = vec![0; usize::from(u16::from_be_bytes(first))];
            stream.read_exact(&mut asked).unwrap();
            send(stream, &reply(&asked));
        }
    });
    let counters = run(async move |streams| {
        let (over_tls, in_clear) = (tls(address, opportunistic()), Upstream::udp(address));
        assert_eq!(streams.exchange(&over_tls, &query(1)).await, UNREACHABLE);
        assert_eq!(streams.exchange(&in_clear, &query(1)).await, Ok(reply(&query(1))));
    });
    assert_eq!((counters.tls.handshakes_failed.value(), counters.tcp.opened.value()), (1, 1));
    served.join().unwrap();
}

#[test]
fn roots_that_are_none_are_refused_in_words() {
    let address = SocketAddr::from(([192, 0, 2, 1], 853));
    let strict = [tls(address, named(NAME))];
    let scratch = Scratch::create();
    let path = scratch.0.join("roots.pem");
    let refusal = |upstreams: &[Upstream]| {
        Trust::load(&Roots::File(path.clone()), upstreams).err().map(|error| error.to_string())
    };
    let lacking = refusal(&strict).unwrap();
    let place = format!("forward.tls_roots: {}: ", path.display());
    assert!(lacking.starts_with(&place), "{lacking}");
    fs::write(&path, "no certificates here\n").unwrap();
    assert!(refusal(&strict).unwrap().contains("no certificate in it"));
    fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(refusal(&strict).unwrap().contains("certificate 1 is no root"));
    fs::write(&path, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    assert!(refusal(&strict).is_some());
    // Nobody needs them, nobody reads them.
    assert_eq!(refusal(&[tls(address, opportunistic()), tls(address, pinned([1; 32]))]), None);
    assert_eq!(refusal(&[tcp(address)]), None);
    let name = refusal(&[tls(address, named("-.example"))]).unwrap();
    assert!(name.starts_with("upstream tls://192.0.2.1:853#-.example: its name is none"), "{name}");
}
