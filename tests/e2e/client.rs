//! Clients: dig and kdig with their output taken apart, and raw UDP and TCP for what they refuse to send.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;

use crate::message::Message;
use crate::node::PATIENCE;

/// A record as dig prints it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Printed {
    pub(crate) owner: String,
    pub(crate) ttl: u32,
    pub(crate) rtype: String,
    pub(crate) rdata: String,
}

/// A reply as dig or kdig understood it.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// `NOERROR`, `NXDOMAIN`, …
    pub(crate) status: String,
    /// Lower-case mnemonics.
    pub(crate) flags: Vec<String>,
    pub(crate) answer: Vec<Printed>,
    pub(crate) authority: Vec<Printed>,
    pub(crate) additional: Vec<Printed>,
    /// Everything that was printed.
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }

    /// Sorted RDATA of the answers of type `rtype`.
    pub(crate) fn rdata(&self, rtype: &str) -> Vec<&str> {
        let of_type = self.answer.iter().filter(|record| record.rtype == rtype);
        let mut rdata: Vec<_> = of_type.map(|record| record.rdata.as_str()).collect();
        rdata.sort_unstable();
        rdata
    }

    pub(crate) fn read(text: String) -> Self {
        let after = |mark: &str| {
            let (_, rest) =
                text.split_once(mark).unwrap_or_else(|| panic!("no `{mark}` in:\n{text}"));
            rest.split([',', ';']).next().unwrap().trim().to_owned()
        };
        let status = after("status: ");
        // kdig says `Flags`, dig says `flags`; the EDNS line that says `flags` too comes later.
        let flags =
            if text.contains(";; Flags: ") { after(";; Flags: ") } else { after(";; flags: ") };
        let flags = flags.split_whitespace().map(str::to_owned).collect();
        let section = |name: &str| {
            let heading = format!(";; {name} SECTION:");
            let lines = text.lines().skip_while(move |line| *line != heading).skip(1);
            lines.take_while(|line| !line.trim().is_empty()).map(printed).collect()
        };
        let [answer, authority, additional] = ["ANSWER", "AUTHORITY", "ADDITIONAL"].map(section);
        Self { status, flags, answer, authority, additional, text }
    }
}

fn printed(line: &str) -> Printed {
    let mut fields = line.split_whitespace();
    let mut field = || fields.next().unwrap_or_else(|| panic!("no record: {line}")).to_owned();
    let (owner, ttl, _class, rtype) = (field(), field(), field(), field());
    let rdata = fields.collect::<Vec<_>>().join(" ");
    Printed { owner, ttl: ttl.parse().unwrap(), rtype, rdata }
}

/// The two programs; they read and write DNS with code that has nothing in common.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Program {
    Dig,
    Kdig,
}

impl Program {
    pub(crate) const BOTH: [Self; 2] = [Self::Dig, Self::Kdig];

    /// Asks `server`; `arguments` as on the command line, separated by blanks.
    pub(crate) fn ask(self, server: SocketAddr, arguments: &str) -> Reply {
        let (program, once) = match self {
            Self::Dig => ("dig", ["+time=20", "+tries=1"]),
            Self::Kdig => ("kdig", ["+time=20", "+retry=0"]),
        };
        let mut command = Command::new(program);
        if self == Self::Dig {
            // Nobody's ~/.digrc.
            command.arg("-r");
        }
        command.arg(format!("@{}", server.ip())).args(["-p", &server.port().to_string()]);
        command.args(once).args(arguments.split_whitespace());
        let output = command.output().unwrap_or_else(|error| {
            panic!("{program} does not start ({error}): run scripts/setup --tests")
        });
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program} {arguments}: {}\n{text}{errors}",
            output.status
        );
        Reply::read(text)
    }
}

/// Asks with dig.
pub(crate) fn dig(server: SocketAddr, arguments: &str) -> Reply {
    Program::Dig.ask(server, arguments)
}

/// A UDP socket that talks to one server.
#[derive(Debug)]
pub(crate) struct Datagrams(UdpSocket);

impl Datagrams {
    /// From an address the kernel chooses.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        Self::bound(any.parse().unwrap(), server)
    }

    /// As [`Datagrams::to`], for who asks again soon: what comes before the node serves may be lost.
    pub(crate) fn briefly(server: SocketAddr) -> Self {
        let own = Self::to(server);
        own.0.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        own
    }

    /// From `source`.
    pub(crate) fn from(source: Ipv4Addr, server: SocketAddr) -> Self {
        Self::bound((IpAddr::from(source), 0).into(), server)
    }

    fn bound(source: SocketAddr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind(source).unwrap();
        // Connected: a reply from any other address never gets here.
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    pub(crate) fn send(&self, message: &[u8]) {
        self.0.send(message).unwrap();
    }

    pub(crate) fn receive_bytes(&self) -> Vec<u8> {
        let mut buf = vec![0; 65_535];
        let len = self.0.recv(&mut buf).expect("a reply arrives in time");
        buf.truncate(len);
        buf
    }

    pub(crate) fn receive(&self) -> Message {
        Message::parse(&self.receive_bytes())
    }

    pub(crate) fn exchange(&self, message: &[u8]) -> Message {
        self.send(message);
        self.receive()
    }

    /// `None` when nobody is there (yet).
    pub(crate) fn try_exchange(&self, message: &[u8]) -> Option<Message> {
        let mut buf = vec![0; 65_535];
        self.0.send(message).ok()?;
        let len = self.0.recv(&mut buf).ok()?;
        Some(Message::parse(&buf[..len]))
    }
}

/// Sends `message` and gives the reply.
pub(crate) fn exchange(server: SocketAddr, message: &[u8]) -> Message {
    Datagrams::to(server).exchange(message)
}

/// A TCP connection.
#[derive(Debug)]
pub(crate) struct Stream(TcpStream);

impl Stream {
    pub(crate) fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Writes octets as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Writes a message behind its length.
    pub(crate) fn send(&mut self, message: &[u8]) {
        self.write(&framed(message));
    }

    /// The next message; `None` when the server has closed, tidily or not.
    pub(crate) fn receive(&mut self) -> Option<Message> {
        let mut len = [0; 2];
        if !self.read(&mut len) {
            return None;
        }
        let mut message = vec![0; u16::from_be_bytes(len).into()];
        assert!(self.read(&mut message), "the stream ended inside a message");
        Some(Message::parse(&message))
    }

    pub(crate) fn exchange(&mut self, message: &[u8]) -> Message {
        self.send(message);
        self.receive().expect("the server answers before it closes")
    }

    /// The reply, or `None` when the server turns the connection away.
    pub(crate) fn try_exchange(&mut self, message: &[u8]) -> Option<Message> {
        self.0.write_all(&framed(message)).ok()?;
        self.receive()
    }

    /// Sends FIN; the server may still speak.
    pub(crate) fn finish(&self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    fn read(&mut self, buf: &mut [u8]) -> bool {
        match self.0.read_exact(buf) {
            Ok(()) => true,
            Err(error) => {
                let closed = [
                    ErrorKind::UnexpectedEof,
                    ErrorKind::ConnectionReset,
                    ErrorKind::ConnectionAborted,
                    ErrorKind::BrokenPipe,
                ];
                assert!(
                    closed.contains(&error.kind()),
                    "the server neither speaks nor closes: {error}"
                );
                false
            }
        }
    }
}

/// A message behind its length (RFC 1035 §4.2.2).
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).unwrap();
    [&len.to_be_bytes(), message].concat()
}
