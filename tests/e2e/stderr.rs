//! Standard error that cannot be written, has lost its reader, or is never read: the node serves, drains and ends.

use std::fs::OpenOptions;
use std::io::{PipeReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ExitStatus, Stdio};

use crate::client::Datagrams;
use crate::message::{A, NOERROR, query};
use crate::node::{Setup, eventually, signal_to};
use crate::ports::{self, Directory};
use crate::scripted::Scripted;

const LOCAL: &str = "[[local]]\nzone = \"local.test.\"\nrecords = \"www 60 A 192.0.2.1\"";

/// Bytes that no pipe holds.
const MORE_THAN_A_PIPE: usize = 2 << 20;

/// A node whose log nobody in this process reads line by line.
struct Unheard {
    child: Child,
    address: SocketAddr,
    _directory: Directory,
}

impl Unheard {
    /// Starts it with `stderr` and waits until it answers.
    fn start(stderr: impl Into<Stdio>) -> Self {
        Self::start_as(Setup::new(), stderr)
    }

    fn start_as(setup: Setup, stderr: impl Into<Stdio>) -> Self {
        let address = ports::own();
        let directory = Directory::create();
        let mut command = setup.listen(address).config(LOCAL).command(&directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().expect("the binary starts");
        let mut node = Self { child, address, _directory: directory };
        eventually("an answer", || {
            assert!(node.child.try_wait().unwrap().is_none(), "it ended before it served");
            node.answers().then_some(())
        });
        node
    }

    fn answers(&self) -> bool {
        let reply = Datagrams::briefly(self.address).try_exchange(&query(1, "www.local.test", A));
        reply.is_some_and(|reply| reply.rcode() == NOERROR)
    }

    fn signal(&self, signal: &str) {
        signal_to(&self.child, signal);
    }

    fn wait_for_exit(&mut self) -> ExitStatus {
        eventually("exit", || self.child.try_wait().unwrap())
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        // Fails only when it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe that is full, so that whoever writes to it waits for its reader.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let filler = writer.try_clone().unwrap();
    let fill = move || {
        // Ends with an error when the reader goes at the end of the test.
        let _ = writer.write_all(&vec![b'.'; MORE_THAN_A_PIPE]);
    };
    std::thread::spawn(fill);
    (reader, filler.into())
}

#[test]
fn full_disk_behind_stderr_does_not_stop_it() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut node = Unheard::start(full);
    node.signal("USR1");
    node.signal("HUP");
    assert!(node.answers());
    node.signal("TERM");
    assert!(node.wait_for_exit().success());
}

#[test]
fn reader_of_stderr_may_go() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut node = Unheard::start(writer);
    drop(reader);
    node.signal("HUP");
    node.signal("USR1");
    assert!(node.answers());
    node.signal("TERM");
    assert!(node.wait_for_exit().success());
}

#[test]
fn pipe_that_nobody_reads_delays_neither_start_nor_end() {
    let (_reader, writer) = full_pipe();
    let mut node = Unheard::start(writer);
    for _ in 0..20 {
        node.signal("USR1");
    }
    assert!(node.answers());
    node.signal("TERM");
    assert!(node.wait_for_exit().success());
}

#[test]
fn second_signal_ends_it_at_once_whatever_becomes_of_the_log() {
    let upstream = Scripted::start(|_| vec![]);
    let waits = "[node]\ndrain = \"60s\"\n[forward]\nattempt_timeout = \"20s\"\ndeadline = \"25s\"";
    let (_reader, writer) = full_pipe();
    let setup = Setup::new().upstream(upstream.address).config(waits);
    let mut node = Unheard::start_as(setup, writer);
    Datagrams::to(node.address).send(&query(1, "name.test", A));
    upstream.wait_for("name.test.");
    // Two that come together may be one to the kernel. The drain itself is longer than `eventually` waits.
    eventually("exit", || {
        node.signal("TERM");
        node.child.try_wait().unwrap()
    });
}

#[test]
fn log_behind_a_stuck_pipe_comes_out_when_it_is_read() {
    let (mut reader, writer) = full_pipe();
    let mut node = Unheard::start(writer);
    let heard = std::thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    node.signal("USR1");
    assert!(node.answers());
    node.signal("TERM");
    assert!(node.wait_for_exit().success());
    let text = heard.join().unwrap().unwrap();
    assert!(text.contains("serving on 1 core(s)"), "the log is lost");
    assert!(text.contains("dns_queries_total{"), "the counters are lost");
}
