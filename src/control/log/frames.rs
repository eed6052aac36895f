//! Frame Streams, in which dnstap travels (fstrm's `fstrm.rst`): data frames with their length before them, and control
//! frames behind a length of zero. Towards a socket both sides say what they speak, and the end is confirmed; a file only
//! begins and ends.

use std::io::{self, Read, Write};

use crate::observe::log::CONTENT_TYPE;

/// Longest control frame (`FSTRM_CONTROL_FRAME_LENGTH_MAX`).
const CONTROL_BYTES_MAX: u32 = 512;

/// The only field of control frames.
const FIELD_CONTENT_TYPE: u32 = 1;

/// What a control frame says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
enum Control {
    Accept = 1,
    Start = 2,
    Stop = 3,
    Ready = 4,
    Finish = 5,
}

impl Control {
    /// Whether it names the type of what is sent.
    const fn has_type(self) -> bool {
        matches!(self, Self::Accept | Self::Start | Self::Ready)
    }

    fn frame(self) -> Vec<u8> {
        let mut body = (self as u32).to_be_bytes().to_vec();
        if self.has_type() {
            body.extend(FIELD_CONTENT_TYPE.to_be_bytes());
            body.extend(length(CONTENT_TYPE).to_be_bytes());
            body.extend(CONTENT_TYPE);
        }
        [&0_u32.to_be_bytes()[..], &length(&body).to_be_bytes(), &body].concat()
    }
}

/// Appends the frame that `write` appends, with its length before it.
pub(super) fn append(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    let frame = out.len();
    write(out);
    let len = length(&out[frame..]);
    out[begin..frame].copy_from_slice(&len.to_be_bytes());
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Begins a file.
///
/// # Errors
/// The system's.
pub(super) fn begin_file(file: &mut impl Write) -> io::Result<()> {
    file.write_all(&Control::Start.frame())
}

/// Ends a file.
///
/// # Errors
/// The system's.
pub(super) fn end_file(file: &mut impl Write) -> io::Result<()> {
    file.write_all(&Control::Stop.frame())
}

/// Comes to terms with the receiver at the other end.
///
/// # Errors
/// The system's; `InvalidData` when the receiver does not take dnstap.
pub(super) fn shake_hands(peer: &mut (impl Read + Write)) -> io::Result<()> {
    peer.write_all(&Control::Ready.frame())?;
    expect(Control::Accept, peer)?;
    peer.write_all(&Control::Start.frame())
}

/// Tells the receiver that this was all, and waits until it has read it.
///
/// # Errors
/// As [`shake_hands`].
pub(super) fn part(peer: &mut (impl Read + Write)) -> io::Result<()> {
    peer.write_all(&Control::Stop.frame())?;
    expect(Control::Finish, peer)
}

fn expect(wanted: Control, peer: &mut impl Read) -> io::Result<()> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if number(peer)? != 0 {
        return Err(wrong("the receiver sends data"));
    }
    let len = number(peer)?;
    if !(4..=CONTROL_BYTES_MAX).contains(&len) {
        return Err(wrong("the receiver does not speak Frame Streams"));
    }
    let mut body = vec![0; usize::try_from(len).unwrap_or(0)];
    peer.read_exact(&mut body)?;
    if !body.starts_with(&(wanted as u32).to_be_bytes()) {
        return Err(wrong("the receiver does not speak Frame Streams in turn"));
    }
    let takes_ours = || body.windows(CONTENT_TYPE.len()).any(|part| part == CONTENT_TYPE);
    if wanted.has_type() && body.len() > 4 && !takes_ours() {
        return Err(wrong("the receiver does not take dnstap"));
    }
    Ok(())
}

fn number(peer: &mut impl Read) -> io::Result<u32> {
    let mut octets = [0; 4];
    peer.read_exact(&mut octets)?;
    Ok(u32::from_be_bytes(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A receiver that says `says`, whatever it hears.
    struct Peer {
        says: io::Cursor<Vec<u8>>,
        heard: Vec<u8>,
    }

    impl Read for Peer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.says.read(buffer)
        }
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.heard.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn peer(says: &[u8]) -> Peer {
        Peer { says: io::Cursor::new(says.to_vec()), heard: Vec::new() }
    }

    #[test]
    fn both_sides_say_in_turn_what_they_speak() {
        let mut peer = peer(&[Control::Accept.frame(), Control::Finish.frame()].concat());
        shake_hands(&mut peer).unwrap();
        part(&mut peer).unwrap();
        let expected = [Control::Ready.frame(), Control::Start.frame(), Control::Stop.frame()];
        assert_eq!(peer.heard, expected.concat());
        let ready = b"\0\0\0\0\0\0\0\x22\0\0\0\x04\0\0\0\x01\0\0\0\x16protobuf:dnstap.Dnstap";
        assert_eq!(Control::Ready.frame(), ready);
    }

    #[test]
    fn receivers_of_anything_else_are_refused() {
        let mut foreign = Control::Accept.frame();
        let last = foreign.len() - 1;
        foreign[last] ^= 1;
        for (says, why) in [
            (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "sends data"),
            (b"\0\0\0\0\xFF\xFF\xFF\xFF", "does not speak"),
            (&Control::Finish.frame(), "in turn"),
            (&foreign, "does not take dnstap"),
            (b"\0\0", "fill whole buffer"),
        ] {
            let error = shake_hands(&mut peer(says)).unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    #[test]
    fn frames_carry_their_length_before_them() {
        let mut out = vec![9];
        append(&mut out, |out| out.extend_from_slice(b"abc"));
        assert_eq!(out, b"\x09\0\0\0\x03abc");
    }
}
