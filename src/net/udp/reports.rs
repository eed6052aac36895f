//! What becomes of datagrams to upstreams that do not arrive: refused by the kernel at once, or reported by the network
//! (ICMP) a little later.
//!
//! The kernel keeps reports per socket, and makes one call on that socket fail for each, be it a receive or the send of
//! another datagram. So a failed call is only the sign that reports wait ([`Plane::note_reports`]), who is meant stands
//! in the report ([`Plane::take_reports`]), and a send that failed is tried again before anyone is blamed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;

use super::sockets::Role;
use super::{Plane, Refusal};
use crate::sys::datagram::Refused;
use crate::sys::error_queue::{self, Report};

/// Reports taken in one turn, of all sockets together: a flood of them costs no more than a batch of datagrams.
const REPORTS_MAX: usize = 64;

/// Sockets whose error queue may hold reports, each once, in the order in which they get their turn.
#[derive(Debug, Default)]
pub(super) struct Failing(RefCell<VecDeque<u16>>);

impl Failing {
    /// Whether no reports wait.
    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

impl Plane {
    /// The kernel refused to send a datagram from socket `index`.
    #[cold]
    pub(super) fn send_refused(&self, index: u16, refused: &Refused<'_>) {
        let role = self.sockets.borrow().role(index);
        let mut errno = refused.errno;
        let Role::Upstream(socket) = role else {
            // A client will ask again; from a closing socket nobody waits for an answer.
            return self.counts.send_refused(errno);
        };
        if error_queue::may_be_report(errno)
            && let Some(to) = refused.to
        {
            self.note_reports(index);
            match self.send_again(index, refused, to) {
                Ok(()) => return self.counts.datagrams_sent.add(1),
                Err(again) => errno = again,
            }
        }
        self.counts.send_refused(errno);
        self.refusals.note(socket, refused.datagram, refused.to, errno);
    }

    fn send_again(&self, index: u16, refused: &Refused<'_>, to: SocketAddr) -> Result<(), i32> {
        match self.sockets.borrow().fd(index) {
            Some(fd) => error_queue::send_again(fd, refused.datagram, to),
            None => Err(refused.errno),
        }
    }

    /// Reports may wait for the upstream-facing socket `index`.
    #[cold]
    pub(super) fn note_reports(&self, index: u16) {
        if self.sockets.borrow().mark_failing(index) {
            self.failing.0.borrow_mut().push_back(index);
            self.wake_if_asleep();
        }
    }

    /// Takes the reports that wait, up to a bound. Whether there was anything to look at.
    #[inline]
    pub(super) fn take_reports(&self) -> bool {
        let is_failing = !self.failing.is_empty();
        if is_failing {
            self.look_for_reports();
        }
        is_failing
    }

    #[cold]
    fn look_for_reports(&self) {
        let sockets = self.sockets.borrow();
        let mut failing = self.failing.0.borrow_mut();
        for _ in 0..REPORTS_MAX {
            let Some(&index) = failing.front() else { return };
            match sockets.fd(index).map(error_queue::next) {
                Some(Ok(Some(report))) => self.report(sockets.role(index), &report),
                // Empty; or the socket is gone, or has no such queue.
                Some(Ok(None) | Err(_)) | None => {
                    sockets.clear_failing(index);
                    failing.pop_front();
                }
            }
        }
        // Nor does one socket's flood hold up the others.
        if let Some(index) = failing.pop_front() {
            failing.push_back(index);
        }
    }

    fn report(&self, role: Role, report: &Report) {
        let Some(icmp) = report.icmp else { return };
        self.counts.icmp_errors.add(1);
        if let (Role::Upstream(socket), Some(head), true) =
            (role, report.head, icmp.is_dead_end() && report.to.is_some())
        {
            let to = report.to;
            self.refusals.push(Refusal { socket, head, to, is_want_of_room: false });
        }
    }
}
