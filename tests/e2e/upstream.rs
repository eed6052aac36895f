//! Real servers as upstreams, each in a directory of its own: NSD with the zones of this file, and Unbound over TLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::client::dig;
use crate::node::eventually;
use crate::ports::{self, Directory};

const ZONE: &str = "example.test.";

const RECORDS: &str = r#"
$TTL 300
@          3600 SOA ns hostmaster 1 7200 3600 1209600 60
@          NS    ns
@          MX    10 mail
@          MX    20 mail.example.net.
ns         A     192.0.2.53
mail       A     192.0.2.25
www        A     192.0.2.1
www        A     192.0.2.2
www        AAAA  2001:db8::1
text       TXT   "one string" "another; with \"quotes\""
alias      CNAME hop
hop        CNAME www
unknown    TYPE65280 \# 4 0A000001
*.wild     A     192.0.2.99
"#;

/// TXT records of these names, and how many: 100 octets each make answers for every limit.
const SIZED: [(&str, usize); 3] = [("medium", 8), ("big", 20), ("huge", 400)];

/// NSD until it is dropped.
#[derive(Debug)]
pub(crate) struct Nsd {
    child: Child,
    pub(crate) address: SocketAddr,
    _directory: Directory,
}

impl Nsd {
    /// Starts NSD and waits until it answers.
    pub(crate) fn start() -> Self {
        let nsd = Self::serving(ZONE, &zone());
        let answer = dig(nsd.address, "+norecurse www.example.test A");
        assert_eq!(answer.rdata("A"), ["192.0.2.1", "192.0.2.2"]);
        nsd
    }

    /// The same, with the zone `apex` of these `records`.
    pub(crate) fn serving(apex: &str, records: &str) -> Self {
        let directory = Directory::create();
        let address = ports::own();
        directory.write("zone", records);
        let config = directory.write("nsd.conf", &config(&directory, address, apex));
        let mut command = Command::new("/usr/sbin/nsd");
        command.arg("-d").arg("-c").arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("nsd does not start ({error}): run scripts/setup --tests")
        });
        let nsd = Self { child, address, _directory: directory };
        eventually("NSD serving", || std::net::TcpStream::connect(address).ok());
        nsd
    }

    /// Ends NSD, its children too.
    pub(crate) fn stop(&mut self) {
        let kill = format!("kill -TERM {}", self.child.id());
        // Fails only when it has already ended.
        let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn zone() -> String {
    let mut text = format!("$ORIGIN {ZONE}{RECORDS}");
    for (name, count) in SIZED {
        for number in 0..count {
            text.push_str(&format!("{name} TXT \"{number:0>87}\"\n"));
        }
    }
    text
}

fn config(directory: &Directory, address: SocketAddr, apex: &str) -> String {
    let path = directory.path().display();
    let SocketAddr::V4(address) = address else { panic!("NSD is asked over IPv4") };
    format!(
        "server:\n  ip-address: {}@{}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{path}\"\n  \
         database: \"\"\n  pidfile: \"{path}/nsd.pid\"\n  xfrdfile: \"{path}/xfrd.state\"\n  \
         xfrdir: \"{path}\"\n  zonelistfile: \"{path}/zone.list\"\n  logfile: \"{path}/log\"\n  \
         server-count: 1\n  rrl-ratelimit: 0\n\
         remote-control:\n  control-enable: no\n\
         zone:\n  name: {apex}\n  zonefile: zone\n",
        address.ip(),
        address.port()
    )
}

/// A real resolver that speaks DNS over TLS: Unbound, with answers of its own.
#[derive(Debug)]
pub(crate) struct Unbound {
    child: Child,
    /// Where it speaks TLS.
    pub(crate) address: SocketAddr,
    _directory: Directory,
}

impl Unbound {
    /// Starts Unbound with a key and its certificate, and waits until it listens.
    pub(crate) fn start([key, certificate]: &[PathBuf; 2]) -> Self {
        let directory = Directory::create();
        let address = ports::own();
        let texts: String = (0..30)
            .map(|number| format!("  local-data: 'big.example.test. 300 TXT \"{number:0>87}\"'\n"))
            .collect();
        let config = format!(
            "server:\n  interface: {}@{}\n  tls-port: {1}\n  tls-service-key: \"{}\"\n  \
             tls-service-pem: \"{}\"\n  username: \"\"\n  chroot: \"\"\n  directory: \"{}\"\n  \
             pidfile: \"\"\n  use-syslog: no\n  do-daemonize: no\n  num-threads: 1\n  \
             module-config: \"iterator\"\n  edns-tcp-keepalive: yes\n  \
             local-zone: \"example.test.\" static\n  \
             local-data: \"www.example.test. 300 A 192.0.2.1\"\n{texts}  \
             local-zone: \"wild.test.\" redirect\n  local-data: \"wild.test. 300 A 192.0.2.2\"\n\
             remote-control:\n  control-enable: no\n",
            address.ip(),
            address.port(),
            key.display(),
            certificate.display(),
            directory.path().display()
        );
        let config = directory.write("unbound.conf", &config);
        let mut command = Command::new("/usr/sbin/unbound");
        command.arg("-d").arg("-c").arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("unbound does not start ({error}): run scripts/setup --tests")
        });
        let unbound = Self { child, address, _directory: directory };
        eventually("Unbound serving", || std::net::TcpStream::connect(address).ok());
        unbound
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let kill = format!("kill -TERM {}", self.child.id());
        // Fails only when it has already ended.
        let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}
