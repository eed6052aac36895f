//! A real authoritative server as upstream: NSD, in a directory of its own, with the zones of this file.

use std::net::SocketAddr;
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
        let directory = Directory::create();
        let address = ports::own();
        directory.write("zone", &zone());
        let config = directory.write("nsd.conf", &config(&directory, address));
        let mut command = Command::new("/usr/sbin/nsd");
        command.arg("-d").arg("-c").arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("nsd does not start ({error}): run scripts/setup --tests")
        });
        let nsd = Self { child, address, _directory: directory };
        eventually("NSD serving", || std::net::TcpStream::connect(address).ok());
        let answer = dig(address, "+norecurse www.example.test A");
        assert_eq!(answer.rdata("A"), ["192.0.2.1", "192.0.2.2"]);
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

fn config(directory: &Directory, address: SocketAddr) -> String {
    let path = directory.path().display();
    let SocketAddr::V4(address) = address else { panic!("NSD is asked over IPv4") };
    format!(
        "server:\n  ip-address: {}@{}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{path}\"\n  \
         database: \"\"\n  pidfile: \"{path}/nsd.pid\"\n  xfrdfile: \"{path}/xfrd.state\"\n  \
         xfrdir: \"{path}\"\n  zonelistfile: \"{path}/zone.list\"\n  logfile: \"{path}/log\"\n  \
         server-count: 1\n  rrl-ratelimit: 0\n\
         remote-control:\n  control-enable: no\n\
         zone:\n  name: {ZONE}\n  zonefile: zone\n",
        address.ip(),
        address.port()
    )
}
