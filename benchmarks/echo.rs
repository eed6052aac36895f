//! Question: what does a datagram cost on our data plane when nothing is done with it?
//!
//! An echo server on exactly the plane that the node uses. At the end (SIGTERM, SIGINT or `--seconds`) it prints its
//! CPU time per datagram; the DNS server's cost per cached answer is compared to that, in one run on one machine:
//! `cargo run --release --example echo -- --cpu 0 --io uring --listen 127.0.0.1:20200 --seconds 10`.

use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement};
use heimdall_uring::config::{self, IoBackend};
use heimdall_uring::net::udp::{Plane, Setup};
use heimdall_uring::net::{Path, Respond, SocketId};

/// What to measure.
#[derive(Parser)]
struct Arguments {
    /// CPU to run on.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Address to serve.
    #[arg(long, default_value = "127.0.0.1:20200")]
    listen: SocketAddr,
    /// Backend: `uring` or `mmsg`.
    #[arg(long, default_value = "uring")]
    io: String,
    /// End after this many seconds; 0 waits for a signal.
    #[arg(long, default_value_t = 0)]
    seconds: u64,
    /// Microseconds to poll before sleeping.
    #[arg(long, default_value_t = 0)]
    spin_us: u64,
}

/// Sends every datagram back as a response (QR set), so that DNS load generators count it.
struct Echo;

impl Respond for Echo {
    fn foresee<'d>(&self, _requests: impl Iterator<Item = &'d [u8]>) {}

    fn begin(&self) {}

    fn request(&self, request: &[u8], _: &Path, reply: &mut [u8]) -> usize {
        let Some(reply) = reply.get_mut(..request.len()) else { return 0 };
        reply.copy_from_slice(request);
        if let Some(flags) = reply.get_mut(2) {
            *flags |= 0x80;
        }
        reply.len()
    }

    fn response(&self, _: SocketId, _: SocketAddr, _: &[u8]) {}
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let builder = LocalExecutorBuilder::new(Placement::Fixed(arguments.cpu)).io_memory(1 << 20);
    let executor = builder.make().map_err(std::io::Error::from)?;
    executor.run(serve(&arguments, &stop))
}

async fn serve(arguments: &Arguments, stop: &AtomicBool) -> std::io::Result<()> {
    let io = match arguments.io.as_str() {
        "mmsg" => IoBackend::Mmsg,
        _ => IoBackend::Uring,
    };
    let node = config::Node {
        listen: vec![arguments.listen],
        io,
        spin_before_sleep: Duration::from_micros(arguments.spin_us),
        ..config::Node::default()
    };
    let udp = config::Udp::default();
    let plane = Plane::open(&Setup::new(&node, &udp, 0)).map_err(std::io::Error::other)?;
    let task = glommio::spawn_local(Rc::clone(&plane).run(Rc::new(Echo))).detach();

    let started = cpu_nanoseconds()?;
    let tenths = arguments.seconds.saturating_mul(10);
    let mut passed = 0;
    while !stop.load(Ordering::Relaxed) && (tenths == 0 || passed < tenths) {
        sleep(Duration::from_millis(100)).await;
        passed += 1;
    }
    let spent = cpu_nanoseconds()? - started;
    plane.close();
    if let Some(result) = task.await {
        result?;
    }
    let counts = plane.counts().snapshot();
    let per_datagram = spent / counts.datagrams_received.max(1);
    let mut out = std::io::stdout().lock();
    writeln!(out, "io={} ns_per_datagram={per_datagram} cpu_ns={spent}", arguments.io)?;
    writeln!(out, "{counts:?}")
}

/// CPU time of all threads of this process so far, user and system, in nanoseconds.
fn cpu_nanoseconds() -> std::io::Result<u64> {
    // The scheduler's own account; /proc/self/stat has only hundredths of a second.
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text.split_ascii_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        sum += first.ok_or_else(|| std::io::Error::other("schedstat has no CPU time in it"))?;
    }
    Ok(sum)
}
