//! What the control plane asks of one core: a bounded queue and a bell. The core never waits for whoever asks; who asks
//! waits for the core, but not for ever.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::{fmt, io};

use crate::sys::eventfd::EventFd;

/// Requests that may wait for one core.
const WAITING_MAX: usize = 16;

/// Something that a core is to do or to tell.
#[derive(Debug)]
pub enum Request {
    /// Go by what is in force now, and say so.
    TakeUp(Sender<()>),
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
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn desk_takes_what_it_has_room_for_and_says_so() {
        let (desk, inbox) = Desk::open().unwrap();
        let request = || Request::TakeUp(channel().0);
        for _ in 0..WAITING_MAX {
            desk.ask(request()).unwrap();
        }
        assert_eq!(desk.ask(request()), Err(Busy));
        assert!(matches!(inbox.queue.try_recv(), Ok(Request::TakeUp(_))));
        desk.ask(request()).unwrap();
        drop(inbox);
        assert_eq!(desk.ask(request()), Err(Busy));
    }
}
