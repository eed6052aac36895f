//! What carries questions to the server and answers back: datagrams ([`crate::udp`]) or streams ([`crate::stream`]).

use std::net::IpAddr;

/// Something that has come, or will not.
#[derive(Debug)]
pub(crate) enum Arrival<'a> {
    /// A message from the server.
    Answer(&'a [u8]),
    /// The question with this ID was not sent after all.
    Unsent(u16),
    /// Nothing that was asked on this lane will be answered any more.
    Closed,
}

/// Why a question could not be taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no room now.
    Full,
    /// There never will be; why, in words.
    Broken(String),
}

/// What went wrong on our own side, and is not the server's fault.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Troubles {
    /// Answers dropped for want of room in a socket's buffer.
    pub(crate) dropped: u64,
    /// How often the kernel had no buffer for an answer.
    pub(crate) starved: u64,
    /// Connections that had to be opened anew.
    pub(crate) reopened: u64,
}

impl Troubles {
    /// What has come to these since they were `earlier`.
    pub(crate) const fn since(self, earlier: Self) -> Self {
        Self {
            dropped: self.dropped - earlier.dropped,
            starved: self.starved - earlier.starved,
            reopened: self.reopened - earlier.reopened,
        }
    }
}

/// A way to the server with several lanes; each has IDs of its own.
pub(crate) trait Door {
    /// How many lanes there are.
    fn lanes(&self) -> usize;

    /// Takes a question for `lane`, which `write` writes into a buffer, and whose length that returns. `from` is honoured by
    /// datagrams; a stream has the address that it was opened from.
    fn send(
        &mut self,
        lane: usize,
        from: Option<IpAddr>,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), Refusal>;

    /// Lets what waits go out and come in; `take` gets what has come, with its lane. Whether anything had. Never waits.
    ///
    /// # Errors
    /// What the system refuses for good, in words.
    fn turn(&mut self, take: &mut impl FnMut(usize, Arrival<'_>)) -> Result<bool, String>;

    /// What went wrong here so far.
    fn troubles(&self) -> Troubles;
}
