//! The sockets of one core's data plane and where each is in its life. Listeners come first and stay; upstream-facing
//! sockets come and go, and a number is free again only when nothing under way can still name it.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::net::SocketId;

/// What arrives on a socket, or that it no longer matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Clients' queries.
    Listener,
    /// Upstreams' answers.
    Upstream(SocketId),
    /// Nothing that anyone wants: the socket is closing.
    Closing,
}

/// One socket; `T` is how the backend names it.
#[derive(Debug)]
struct Socket<T> {
    fd: OwnedFd,
    target: T,
    is_armed: bool,
    is_muted: bool,
    closing: Option<Closing>,
    is_ready: bool,
    is_failing: Cell<bool>,
    drops_seen: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Closing {
    is_cancelled: bool,
}

/// The table of sockets.
#[derive(Debug)]
pub(super) struct Sockets<T> {
    entries: Vec<Option<Socket<T>>>,
    listeners: u16,
    free: Vec<u16>,
    unarmed: Vec<u16>,
}

impl<T: Copy> Sockets<T> {
    /// A table with room for `listeners` and for `upstream_max` sockets beside them.
    pub(super) fn new(listeners: u16, upstream_max: u16) -> Self {
        let count = listeners.saturating_add(upstream_max);
        Self {
            entries: std::iter::repeat_with(|| None).take(usize::from(count)).collect(),
            listeners,
            free: (0..count).rev().collect(),
            unarmed: Vec::new(),
        }
    }

    /// The lowest-cost free number: listeners, opened first, get `0..listeners` in order.
    pub(super) fn vacancy(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Puts a socket at the number that [`Self::vacancy`] named; it waits to be armed.
    pub(super) fn insert(&mut self, index: u16, fd: OwnedFd, target: T) {
        assert_eq!(self.free.pop(), Some(index), "the number was vacant a moment ago");
        self.entries[usize::from(index)] = Some(Socket {
            fd,
            target,
            is_armed: false,
            is_muted: false,
            closing: None,
            is_ready: false,
            is_failing: Cell::new(false),
            drops_seen: 0,
        });
        self.unarmed.push(index);
    }

    /// The number of an upstream-facing socket.
    pub(super) const fn index_of(&self, id: SocketId) -> u16 {
        self.listeners.saturating_add(id.0)
    }

    /// The upstream-facing socket at a number.
    pub(super) const fn id_of(&self, index: u16) -> SocketId {
        SocketId(index.saturating_sub(self.listeners))
    }

    /// Listeners.
    pub(super) const fn listeners(&self) -> u16 {
        self.listeners
    }

    /// How to name an open socket; `None` once it is closing.
    #[inline]
    pub(super) fn target(&self, index: u16) -> Option<T> {
        let socket = self.get(index)?;
        socket.closing.is_none().then_some(socket.target)
    }

    /// The descriptor at a number, closing or not.
    pub(super) fn fd(&self, index: u16) -> Option<BorrowedFd<'_>> {
        Some(self.get(index)?.fd.as_fd())
    }

    /// The descriptor at a number if what arrives there is wanted.
    pub(super) fn receiving(&self, index: u16) -> Option<BorrowedFd<'_>> {
        let socket = self.get(index)?;
        (socket.closing.is_none() && !socket.is_muted).then(|| socket.fd.as_fd())
    }

    /// What arrives at a number.
    #[inline]
    pub(super) fn role(&self, index: u16) -> Role {
        match self.get(index) {
            Some(socket) if socket.closing.is_none() => {
                if index < self.listeners {
                    Role::Listener
                } else {
                    Role::Upstream(self.id_of(index))
                }
            }
            _ => Role::Closing,
        }
    }

    /// Takes the next socket that waits for its standing receive or poll, and marks it armed.
    pub(super) fn arm_next(&mut self) -> Option<(u16, T)> {
        while let Some(index) = self.unarmed.pop() {
            let Some(socket) = self.entry_mut(index) else { continue };
            if socket.closing.is_none() && !socket.is_muted && !socket.is_armed {
                socket.is_armed = true;
                return Some((index, socket.target));
            }
        }
        None
    }

    /// The standing operation of a socket has ended, or could not be queued. Returns whether it waits to be armed again.
    pub(super) fn ended(&mut self, index: u16) -> bool {
        let Some(socket) = self.entry_mut(index) else { return false };
        socket.is_armed = false;
        let waits = socket.closing.is_none() && !socket.is_muted;
        if waits {
            self.unarmed.push(index);
        }
        waits
    }

    /// Keeps a listener from being armed again; it still sends. Returns whether its standing operation must end.
    pub(super) fn mute(&mut self, index: u16) -> bool {
        self.entry_mut(index).is_some_and(|socket| {
            socket.is_muted = true;
            socket.is_armed
        })
    }

    /// Begins to close an upstream-facing socket. Returns whether that was news: a cancellation must then be queued.
    pub(super) fn close(&mut self, index: u16) -> bool {
        self.entry_mut(index).is_some_and(|socket| {
            let is_news = socket.closing.is_none();
            socket.closing.get_or_insert(Closing { is_cancelled: false });
            is_news
        })
    }

    /// The cancellation of a closing socket is over.
    pub(super) fn cancelled(&mut self, index: u16) {
        if let Some(closing) = self.entry_mut(index).and_then(|socket| socket.closing.as_mut()) {
            closing.is_cancelled = true;
        }
    }

    /// Gives a closing socket's number back once nothing under way names it, and returns its descriptor to be closed.
    pub(super) fn reap(&mut self, index: u16) -> Option<OwnedFd> {
        let socket = self.get(index)?;
        if socket.is_armed || socket.closing != Some(Closing { is_cancelled: true }) {
            return None;
        }
        let socket = self.entries[usize::from(index)].take()?;
        self.free.push(index);
        Some(socket.fd)
    }

    /// Marks a socket readable. Returns whether that was news.
    pub(super) fn mark_ready(&mut self, index: u16) -> bool {
        self.entry_mut(index).is_some_and(|socket| !std::mem::replace(&mut socket.is_ready, true))
    }

    /// Marks a socket drained.
    pub(super) fn clear_ready(&mut self, index: u16) {
        if let Some(socket) = self.entry_mut(index) {
            socket.is_ready = false;
        }
    }

    /// Marks that reports may wait for a socket. Returns whether that was news.
    pub(super) fn mark_failing(&self, index: u16) -> bool {
        self.get(index).is_some_and(|socket| !socket.is_failing.replace(true))
    }

    /// Marks that no reports wait for a socket.
    pub(super) fn clear_failing(&self, index: u16) {
        if let Some(socket) = self.get(index) {
            socket.is_failing.set(false);
        }
    }

    /// Takes note of a socket's drop count as the kernel states it and returns how many are new.
    pub(super) fn note_drops(&mut self, index: u16, drops: u32) -> u32 {
        let Some(socket) = self.entry_mut(index) else { return 0 };
        let new = drops.wrapping_sub(socket.drops_seen);
        // Counts of one socket only grow; a step back would be a datagram that overtook another.
        if new > u32::MAX / 2 {
            return 0;
        }
        socket.drops_seen = drops;
        new
    }

    #[inline]
    fn get(&self, index: u16) -> Option<&Socket<T>> {
        self.entries.get(usize::from(index))?.as_ref()
    }

    #[inline]
    fn entry_mut(&mut self, index: u16) -> Option<&mut Socket<T>> {
        self.entries.get_mut(usize::from(index))?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn descriptor() -> OwnedFd {
        std::os::unix::net::UnixStream::pair().unwrap().0.into()
    }

    fn open(sockets: &mut Sockets<u16>) -> Option<u16> {
        let index = sockets.vacancy()?;
        sockets.insert(index, descriptor(), index);
        Some(index)
    }

    #[test]
    fn listeners_get_the_first_numbers_in_order() {
        let mut sockets = Sockets::new(2, 1);
        assert_eq!([open(&mut sockets), open(&mut sockets)], [Some(0), Some(1)]);
        let upstream = open(&mut sockets).unwrap();
        assert_eq!(sockets.role(0), Role::Listener);
        assert_eq!(sockets.role(upstream), Role::Upstream(SocketId(0)));
        assert_eq!(sockets.index_of(SocketId(0)), upstream);
        assert_eq!(open(&mut sockets), None);
    }

    #[test]
    fn a_muted_listener_is_not_armed_again_but_still_sends() {
        let mut sockets = Sockets::new(1, 0);
        open(&mut sockets);
        assert!(sockets.arm_next().is_some());
        assert!(sockets.mute(0));
        assert!(!sockets.ended(0));
        assert!(sockets.arm_next().is_none() && sockets.target(0).is_some());
    }

    #[test]
    fn drop_counts_are_differences_even_across_the_wrap() {
        let mut sockets = Sockets::new(1, 0);
        open(&mut sockets);
        assert_eq!(sockets.note_drops(0, 5), 5);
        assert_eq!(sockets.note_drops(0, 4), 0);
        assert_eq!(sockets.note_drops(0, 7), 2);
    }

    proptest! {
        /// Model: an id is busy from `insert` until both the receive has ended and the cancellation is over.
        #[test]
        fn a_number_is_reused_only_when_nothing_names_it(
            steps in proptest::collection::vec((0u8..5, 0u16..4), 0..100)
        ) {
            let mut sockets = Sockets::new(0, 4);
            let mut model: [Option<(bool, Option<bool>)>; 4] = [None; 4];
            for (step, index) in steps {
                let slot = usize::from(index);
                match step {
                    0 => if let Some(index) = open(&mut sockets) {
                        prop_assert!(model[usize::from(index)].is_none(), "reused too early");
                        model[usize::from(index)] = Some((false, None));
                    },
                    1 => while let Some((index, _)) = sockets.arm_next() {
                        let socket = model[usize::from(index)].as_mut().unwrap();
                        prop_assert_eq!(*socket, (false, None));
                        socket.0 = true;
                    },
                    2 => if let Some(socket) = model[slot].as_mut().filter(|socket| socket.0) {
                        socket.0 = false;
                        prop_assert_eq!(sockets.ended(index), socket.1.is_none());
                    },
                    3 => {
                        let expected = model[slot].is_some_and(|socket| socket.1.is_none());
                        prop_assert_eq!(sockets.close(index), expected);
                        if let Some(socket) = &mut model[slot] {
                            socket.1.get_or_insert(false);
                        }
                    },
                    _ => if let Some((_, Some(is_cancelled))) = &mut model[slot] {
                        *is_cancelled = true;
                        sockets.cancelled(index);
                    },
                }
                for (index, entry) in (0u16..).zip(&mut model) {
                    let is_over = *entry == Some((false, Some(true)));
                    prop_assert_eq!(sockets.reap(index).is_some(), is_over);
                    if is_over {
                        *entry = None;
                    }
                }
            }
        }
    }
}
