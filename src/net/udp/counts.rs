//! What the data plane of one core counts. Written by that core alone, readable from any thread.

use crate::observe::{Counter, Exposition, Kind};
use crate::sys::errno;

macro_rules! counts {
    ($($(#[doc = $text:literal])+ $name:ident,)+) => {
        /// Live counters, in cache lines of their own.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counts { $($(#[doc = $text])+ pub(super) $name: Counter,)+ }

        impl Counts {
            /// The values now; each is right, together they are not one instant.
            #[must_use]
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.value(),)+ }
            }

            /// Writes all counters of `core`.
            pub fn expose(&self, core: usize, out: &mut Exposition) {
                let core = core.to_string();
                let labels = [("core", core.as_str())];
                $(
                    let name = concat!("udp_", stringify!($name), "_total");
                    let help = concat!($($text),+).trim_ascii();
                    out.sample(Kind::Counter, name, help, &labels, self.$name.value());
                )+
            }
        }

        /// Values of [`Counts`] at one time.
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        pub struct Snapshot { $($(#[doc = $text])+ pub $name: u64,)+ }
    };
}

counts! {
    /// Datagrams taken from the kernel, wanted or not.
    datagrams_received,
    /// Datagrams the kernel took from us.
    datagrams_sent,
    /// Sends refused because the socket's buffer was full (`EAGAIN`); the datagram is dropped.
    send_would_block,
    /// Sends refused because the kernel or the device was out of memory (`ENOBUFS`, `ENOMEM`).
    send_no_memory,
    /// Sends a firewall or security module refused (`EPERM`, `EACCES`).
    send_not_permitted,
    /// Sends too big for the path or the protocol (`EMSGSIZE`).
    send_too_big,
    /// Sends without a way to the receiver (`ENETUNREACH`, `EHOSTUNREACH`, `ECONNREFUSED`, `ENETDOWN`).
    send_unreachable,
    /// Sends refused for other reasons.
    send_other_errors,
    /// Datagrams dropped because no send buffer was free or the ring took no more.
    no_send_slot,
    /// Datagrams larger than a receive buffer, dropped.
    receive_truncated,
    /// Datagrams from port 0, to which nobody can answer, dropped.
    source_port_zero,
    /// Receives that failed for other reasons than want of buffers.
    receive_errors,
    /// Errors that the network reported (ICMP) about datagrams to upstreams.
    icmp_errors,
    /// Times the kernel found no receive buffer (`ENOBUFS` of a provided-buffer ring).
    buffer_starvation,
    /// Standing receives or polls that ended and were started again.
    rearmed,
    /// Times completions overflowed their queue; they come later, none is lost.
    completion_overflows,
    /// Datagrams the kernel dropped because a listener's socket buffer was full (`SO_RXQ_OVFL`).
    kernel_drops,
    /// Times the plane slept and was woken.
    wakeups,
    /// Calls into the ring.
    enters,
}

impl Counts {
    /// Counts a refused send by its cause.
    #[cold]
    pub(super) fn send_refused(&self, error: i32) {
        let counter = match error {
            errno::EAGAIN => &self.send_would_block,
            errno::ENOBUFS | errno::ENOMEM => &self.send_no_memory,
            errno::EPERM | errno::EACCES => &self.send_not_permitted,
            errno::EMSGSIZE => &self.send_too_big,
            errno::ENETUNREACH | errno::EHOSTUNREACH | errno::ECONNREFUSED | errno::ENETDOWN => {
                &self.send_unreachable
            }
            _ => &self.send_other_errors,
        };
        counter.add(1);
    }
}

impl Snapshot {
    /// Sends refused for whatever reason.
    #[must_use]
    pub const fn send_errors(&self) -> u64 {
        self.send_would_block
            + self.send_no_memory
            + self.send_not_permitted
            + self.send_too_big
            + self.send_unreachable
            + self.send_other_errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_sends_are_counted_by_cause() {
        let counts = Counts::default();
        for error in [errno::EAGAIN, errno::EPERM, errno::ENOBUFS, 99_999] {
            counts.send_refused(error);
        }
        let snapshot = counts.snapshot();
        assert_eq!((snapshot.send_would_block, snapshot.send_not_permitted), (1, 1));
        assert_eq!((snapshot.send_no_memory, snapshot.send_other_errors), (1, 1));
        assert_eq!(snapshot.send_errors(), 4);
    }
}
