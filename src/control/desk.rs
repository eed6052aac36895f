//! What the control plane asks of one core: a bounded queue and a bell. The core never waits for whoever asks; who asks
//! waits for the core, but not for ever.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::{fmt, io};

use tokio::sync::{mpsc, oneshot};

use crate::cache::{Flush, Segment, State};
use crate::observe::Decision;
use crate::serve::{Client, Explained};
use crate::sys::eventfd::EventFd;
use crate::wire::{NameBuf, Rcode, Rtype};

/// Requests that may wait for one core.
const WAITING_MAX: usize = 16;

/// Something that a core is to do or to tell.
#[derive(Debug)]
pub enum Request {
    /// Go by what is in force now, and say so.
    TakeUp(Sender<()>),
    /// Forget answers, here and on all cores.
    Flush(Box<Flush>, oneshot::Sender<()>),
    /// What a look-up would find, in each view.
    Explain(Box<NameBuf>, Rtype, oneshot::Sender<Vec<Finding>>),
    /// The entries in and below a name, a part of the shard at a time. A receiver that is gone ends it.
    Dump(Box<NameBuf>, mpsc::Sender<Vec<Row>>),
    /// What would become of a query, step by step; nothing for what is no query.
    Trace(Box<Hypothetical>, oneshot::Sender<Option<Box<Explained>>>),
    /// The last decisions, newest first.
    Decisions(Box<Wanted>, oneshot::Sender<Vec<Decided>>),
    /// What the core knows of the upstreams.
    Upstreams(oneshot::Sender<Vec<UpstreamState>>),
}

/// A query that nobody has sent.
#[derive(Clone, Debug)]
pub struct Hypothetical {
    /// The message.
    pub message: Vec<u8>,
    /// Who would send it.
    pub client: Client,
}

/// Which decisions are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// About this name.
    pub name: Option<NameBuf>,
    /// About this name and those below it.
    pub under: Option<NameBuf>,
    /// Of this client.
    pub client: Option<IpAddr>,
    /// So many at most.
    pub limit: usize,
}

/// One decision, to be taken along.
#[derive(Clone, Debug)]
pub struct Decided {
    /// What is known of it; without its name.
    pub decision: Decision<'static>,
    /// The name asked for, in presentation form.
    pub name: String,
}

/// What a look-up would find, and what it would be good for.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Whose answers were looked at.
    pub view: u8,
    /// In one word: `fresh`, `denied`, `stale`, `useless` or `absent`.
    pub outcome: &'static str,
    /// Which entry.
    pub row: Option<Row>,
}

/// One entry of a shard.
#[derive(Clone, Debug)]
pub struct Row {
    /// The owner, in presentation form.
    pub name: String,
    /// Its type; none for a denial of all types.
    pub qtype: Option<Rtype>,
    /// What the answer says.
    pub rcode: Rcode,
    /// Seconds until it ceases to be fresh.
    pub ttl: u32,
    /// What it is good for.
    pub state: State,
    /// How far it has come.
    pub segment: Segment,
    /// How often it was asked for since it came or was last moved, as far as that is counted.
    pub accesses: u8,
    /// Whether it is what clients get that ask for DNSSEC.
    pub has_dnssec: bool,
    /// Bytes of the slab that it takes.
    pub bytes: usize,
}

/// One upstream as one core knows it.
#[derive(Clone, Debug)]
pub struct UpstreamState {
    /// Its name, as in the config.
    pub upstream: String,
    /// How it is spoken to.
    pub protocol: &'static str,
    /// Why it is asked last, and for how many seconds more.
    pub rest: Option<(&'static str, f64)>,
    /// Its usual time to an answer in milliseconds, once it has given one.
    pub rtt_ms: Option<f64>,
    /// Exchanges under way.
    pub in_flight: usize,
    /// Its questions go in clear for want of TLS.
    pub is_in_clear: bool,
}

/// Where requests to one core are handed in.
#[derive(Debug)]
pub struct Desk {
    queue: SyncSender<Request>,
    bell: EventFd,
}

/// The core's side of a [`Desk`].
#[derive(Debug)]
pub struct Inbox {
    /// What waits.
    pub queue: Receiver<Request>,
    /// Becomes readable when something does.
    pub bell: OwnedFd,
}

/// The queue of a core is full, or the core is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the core has no room for another request")
    }
}

impl Desk {
    /// Both sides of one core's desk.
    ///
    /// # Errors
    /// The kernel's, when descriptors run out.
    pub fn open() -> io::Result<(Self, Inbox)> {
        let (queue, waiting) = sync_channel(WAITING_MAX);
        let bell = EventFd::open()?;
        let inbox = Inbox { queue: waiting, bell: bell.duplicate()? };
        Ok((Self { queue, bell }, inbox))
    }

    /// Hands `request` in.
    ///
    /// # Errors
    /// [`Busy`]: the request is dropped.
    pub fn ask(&self, request: Request) -> Result<(), Busy> {
        self.queue.try_send(request).map_err(|_| Busy)?;
        self.bell.signal();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn desk_takes_what_it_has_room_for_and_says_so() {
        let (desk, inbox) = Desk::open().unwrap();
        let request = || Request::Upstreams(oneshot::channel().0);
        for _ in 0..WAITING_MAX {
            desk.ask(request()).unwrap();
        }
        assert_eq!(desk.ask(request()), Err(Busy));
        assert!(matches!(inbox.queue.try_recv(), Ok(Request::Upstreams(_))));
        desk.ask(request()).unwrap();
        drop(inbox);
        assert_eq!(desk.ask(request()), Err(Busy));
    }
}
