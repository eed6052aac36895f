//! DNS messages in a byte stream: a two-byte length, then the message (RFC 1035 §4.2.2). No I/O.

/// Bytes of the length prefix.
const PREFIX_BYTES: usize = 2;
/// A message shorter than this has no header (RFC 1035 §4.1.1).
const HEADER_BYTES: usize = 12;
/// Capacity that a rest may keep without being moved into a smaller buffer.
const SLACK_BYTES: usize = 512;

/// What stands at the beginning of a run of bytes.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Frame<'a> {
    /// A whole message, without its prefix.
    Message(&'a [u8]),
    /// Too few bytes yet, or none.
    Partial,
    /// A length too small for a DNS header: the stream cannot be trusted further.
    TooShort,
}

/// Reads the first frame of `bytes`.
pub(crate) fn first(bytes: &[u8]) -> Frame<'_> {
    let Some(announced) = announced(bytes) else {
        return Frame::Partial;
    };
    if announced < HEADER_BYTES {
        return Frame::TooShort;
    }
    match bytes.get(PREFIX_BYTES..PREFIX_BYTES + announced) {
        Some(message) => Frame::Message(message),
        None => Frame::Partial,
    }
}

/// Bytes that `message` takes in the stream.
pub(crate) fn span(message: &[u8]) -> usize {
    PREFIX_BYTES + message.len()
}

fn announced(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.first_chunk::<PREFIX_BYTES>()?;
    Some(usize::from(u16::from_be_bytes(*prefix)))
}

/// Bytes that arrived and could not be used yet. Holds no memory while empty, and never more than arrived, doubled
/// up to the announced length: a client that announces 65 535 bytes and sends ten costs ten.
#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    used: usize,
}

impl Input {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.used == self.bytes.len()
    }

    /// Bytes of memory held.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// What waits, oldest first.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// Adds what arrived.
    pub(crate) fn append(&mut self, arrived: &[u8]) {
        if self.used > 0 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        let len = self.bytes.len();
        if self.bytes.capacity() - len < arrived.len() {
            let whole = announced(&self.bytes).map_or(PREFIX_BYTES, |body| PREFIX_BYTES + body);
            let missing = whole.saturating_sub(len);
            // Doubling keeps one-byte senders linear; the announced length bounds it.
            self.bytes.reserve_exact(arrived.len().max(missing.min(len)));
        }
        self.bytes.extend_from_slice(arrived);
    }

    /// Forgets the `count` oldest bytes, and gives memory back.
    pub(crate) fn consume(&mut self, count: usize) {
        self.used += count;
        assert!(self.used <= self.bytes.len(), "only bytes that wait are used");
        if self.is_empty() {
            *self = Self::default();
        } else if self.used > self.bytes.len() / 2 && self.bytes.capacity() > SLACK_BYTES {
            // Moves at most as many bytes as were used since the last move.
            *self = Self { bytes: self.waiting().to_vec(), used: 0 };
        }
    }
}

/// Replies that wait to be written, prefixes included. Holds no memory while empty.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    /// Bytes not written yet.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether everything is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// What is to be written next.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Queues `message` of the given length; prefix and message leave together (RFC 7766 §8). As long as what waits fits
    /// into `bytes_max`, no more than that is held.
    pub(crate) fn push(&mut self, message: &[u8], length: u16, bytes_max: usize) {
        let span = span(message);
        if self.bytes.capacity() - self.bytes.len() < span {
            self.bytes.drain(..self.sent);
            self.sent = 0;
            let len = self.bytes.len();
            if self.bytes.capacity() - len < span {
                // Doubling keeps many small replies linear; the bound ends it.
                self.bytes.reserve_exact((2 * len).min(bytes_max).max(len + span) - len);
            }
        }
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(message);
    }

    /// Notes that `count` bytes were written, and gives memory back.
    pub(crate) fn consume(&mut self, count: usize) {
        self.sent += count;
        assert!(self.sent <= self.bytes.len(), "only bytes that wait are written");
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(at: u16) -> u8 {
        (at % 251).to_be_bytes()[1]
    }

    fn framed(lengths: &[u16]) -> Vec<u8> {
        let mut stream = Vec::new();
        for &length in lengths {
            stream.extend_from_slice(&length.to_be_bytes());
            stream.extend((0..length).map(pattern));
        }
        stream
    }

    /// Feeds `stream` in pieces of `step` and returns the lengths of the messages that came out.
    fn cut(stream: &[u8], step: usize) -> Vec<u16> {
        let mut input = Input::default();
        let mut lengths = Vec::new();
        for piece in stream.chunks(step) {
            input.append(piece);
            while let Frame::Message(message) = first(input.waiting()) {
                assert!(message.iter().zip(0..=u16::MAX).all(|(&byte, at)| byte == pattern(at)));
                lengths.push(u16::try_from(message.len()).unwrap());
                let span = span(message);
                input.consume(span);
            }
            assert!(input.bytes.capacity() <= 65_537 + step);
        }
        assert!(input.is_empty());
        lengths
    }

    #[test]
    fn messages_survive_every_segmentation() {
        let lengths = [12, 13, 512, 12, 65_535, 4096, 12];
        let stream = framed(&lengths);
        for step in [1, 2, 3, 7, 13, 14, 15, 1000, 16_384, stream.len()] {
            assert_eq!(cut(&stream, step), lengths);
        }
    }

    #[test]
    fn lengths_below_a_header_are_told_from_the_prefix_alone() {
        for length in 0..12_u8 {
            assert_eq!(first(&[0, length]), Frame::TooShort);
        }
        for partial in [&[][..], &[0], &[0, 12], &[255, 255, 0]] {
            assert_eq!(first(partial), Frame::Partial);
        }
    }

    #[test]
    fn announcement_alone_costs_nothing() {
        let mut input = Input::default();
        input.append(&[255, 255, 1, 2, 3]);
        assert!(input.bytes.capacity() < 16);
    }

    #[test]
    fn empty_buffers_hold_no_memory() {
        let mut input = Input::default();
        input.append(&framed(&[4096]));
        input.consume(4098);
        assert_eq!(input.bytes.capacity(), 0);
        let mut output = Output::default();
        output.push(&[7; 4096], 4096, 8192);
        output.consume(1);
        output.push(&[8; 12], 12, 8192);
        assert_eq!(output.len(), 4097 + 14);
        output.consume(4097 + 14);
        assert_eq!(output.bytes.capacity(), 0);
    }

    #[test]
    fn replies_hold_no_more_memory_than_allowed() {
        const BYTES_MAX: usize = 10_000;
        // A client that takes a little after each reply, and one that takes nothing.
        for (message, taken) in [(1000, 970), (12, 13), (4096, 3000), (1000, 0), (12, 0)] {
            let mut output = Output::default();
            let message = vec![7; message];
            let length = u16::try_from(message.len()).unwrap();
            let mut fits = 0;
            for _ in 0..5000 {
                if output.len() + span(&message) <= BYTES_MAX {
                    output.push(&message, length, BYTES_MAX);
                    fits += 1;
                }
                output.consume(taken.min(output.len()));
                assert!(output.bytes.capacity() <= BYTES_MAX, "{}", output.bytes.capacity());
            }
            assert!(fits >= BYTES_MAX / (span(&message)));
        }
    }

    #[test]
    fn replies_keep_their_order_and_bytes_through_every_move() {
        let mut output = Output::default();
        let (mut queued, mut taken) = (Vec::new(), Vec::new());
        for step in 0..2000_usize {
            let length = u16::try_from(12 + step * 37 % 900).unwrap();
            let message: Vec<u8> = (0..length).map(|at| pattern(at ^ length)).collect();
            if output.len() + span(&message) <= 5000 {
                output.push(&message, length, 5000);
                queued.extend_from_slice(&length.to_be_bytes());
                queued.extend_from_slice(&message);
            }
            let count = (step * 53 % 1000).min(output.len());
            taken.extend_from_slice(&output.waiting()[..count]);
            output.consume(count);
        }
        taken.extend_from_slice(output.waiting());
        assert_eq!(taken, queued);
    }

    #[test]
    fn rest_of_a_large_run_moves_to_a_small_buffer() {
        let mut input = Input::default();
        input.append(&framed(&[16_000, 20]));
        input.consume(16_002);
        assert!(input.bytes.capacity() <= 64);
        assert_eq!(first(input.waiting()), Frame::Message(&framed(&[20])[2..]));
    }
}
