//! Extension mechanisms: the OPT pseudo-record (RFC 6891 §6.1) and extended errors (RFC 8914).

use super::{Rcode, Rtype, reader::Reader};

/// Octets of an OPT record before its options: root owner, type, class, TTL, length.
pub const OPT_BYTES: usize = 11;

/// Options accepted in one OPT record; real clients send a handful (floods of them were CVE-2026-41292).
pub const OPTIONS_MAX: usize = 64;

/// Option code of extended DNS errors (RFC 8914 §2).
const OPTION_EDE: u16 = 15;

/// Longest extra text of an extended error that we send, in bytes: UDP room is dear.
const EDE_TEXT_BYTES_MAX: usize = 96;

/// What the OPT record of a message says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Edns {
    /// Largest UDP message the sender takes, in bytes, as it claims.
    pub payload_bytes: u16,
    /// EDNS version; only 0 exists.
    pub version: u8,
    /// The upper eight bits of the RCODE.
    pub extended_rcode: u8,
    /// DNSSEC records are welcome (RFC 3225 §3).
    pub wants_dnssec: bool,
}

/// Why an OPT record is broken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EdnsError {
    /// The message ends inside the record.
    Truncated,
    /// An option leaves the record, or there are too many.
    Option,
}

impl Edns {
    /// The DO bit in the third octet of the TTL field.
    const DO: u8 = 0x80;

    /// Reads an OPT record from behind its type field.
    ///
    /// # Errors
    /// [`EdnsError`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, EdnsError> {
        // One bounds check for all fixed fields: this is on every hit with EDNS.
        let fixed = reader.bytes(8).and_then(|bytes| bytes.first_chunk::<8>());
        let &[p0, p1, extended_rcode, version, z0, _, l0, l1] =
            fixed.ok_or(EdnsError::Truncated)?;
        let len = u16::from_be_bytes([l0, l1]);
        if len > 0 {
            let options = reader.bytes(usize::from(len)).ok_or(EdnsError::Truncated)?;
            check_options(options)?;
        }
        let payload_bytes = u16::from_be_bytes([p0, p1]);
        Ok(Self { payload_bytes, version, extended_rcode, wants_dnssec: z0 & Self::DO != 0 })
    }

    /// Writes this OPT record with at most one extended error to the front of `out` and gives its length.
    ///
    /// `None` when it does not fit; an error text that does not fit is left out first.
    pub fn write(self, ede: Option<Ede>, out: &mut [u8]) -> Option<usize> {
        let text = ede.map_or("", |ede| cut_text(ede.text));
        let with_text = ede.map_or(0, |_| 6 + text.len());
        if OPT_BYTES + with_text > out.len() && !text.is_empty() {
            return self.write(ede.map(|ede| Ede { text: "", ..ede }), out);
        }
        let (record, rest) = out.split_first_chunk_mut::<OPT_BYTES>()?;
        let [t0, t1] = Rtype::OPT.0.to_be_bytes();
        let [p0, p1] = self.payload_bytes.to_be_bytes();
        let do_high = if self.wants_dnssec { Self::DO } else { 0 };
        let [l0, l1] = u16::try_from(with_text).ok()?.to_be_bytes();
        *record = [0, t0, t1, p0, p1, self.extended_rcode, self.version, do_high, 0, l0, l1];
        if let Some(ede) = ede {
            let (option, rest) = rest.split_first_chunk_mut::<6>()?;
            let [o0, o1] = OPTION_EDE.to_be_bytes();
            let [l0, l1] = u16::try_from(2 + text.len()).ok()?.to_be_bytes();
            let [c0, c1] = ede.code.to_be_bytes();
            *option = [o0, o1, l0, l1, c0, c1];
            rest.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        }
        Some(OPT_BYTES + with_text)
    }

    /// The whole RCODE of a message whose header carries `header_rcode`.
    #[must_use]
    pub const fn rcode(self, header_rcode: Rcode) -> Rcode {
        Rcode((self.extended_rcode as u16) << 4 | header_rcode.0 & 0x0F)
    }
}

/// An extended DNS error: why an answer is what it is (RFC 8914). It never changes the RCODE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ede {
    /// INFO-CODE of the IANA registry.
    pub code: u16,
    /// EXTRA-TEXT for a person; cut when long.
    pub text: &'static str,
}

impl Ede {
    /// 3: nobody could be asked, so the answer is past its time (RFC 8767).
    pub const STALE_ANSWER: Self = Self { code: 3, text: "" };
    /// 13: it failed a moment ago, and is not tried again yet (RFC 9520).
    pub const CACHED_ERROR: Self = Self { code: 13, text: "" };
    /// 19: as 3, and the answer says that the name does not exist.
    pub const STALE_NXDOMAIN: Self = Self { code: 19, text: "" };
    /// 15: withheld by what the operator of this server has decided.
    pub const BLOCKED: Self = Self { code: 15, text: "" };
    /// 17: withheld because the client wants it so.
    pub const FILTERED: Self = Self { code: 17, text: "" };
    /// 18: the client may not ask.
    pub const PROHIBITED: Self = Self { code: 18, text: "" };
    /// 20: not a question for this server.
    pub const NOT_AUTHORITATIVE: Self = Self { code: 20, text: "" };
    /// 21: the server does not do this.
    pub const NOT_SUPPORTED: Self = Self { code: 21, text: "" };
    /// 22: no upstream could be reached.
    pub const NO_REACHABLE_AUTHORITY: Self = Self { code: 22, text: "" };
    /// 23: upstreams were reached but failed.
    pub const NETWORK_ERROR: Self = Self { code: 23, text: "" };
    /// 0: none of the others; the text says what.
    pub const OTHER: Self = Self { code: 0, text: "" };

    /// The same error with `text` for a person.
    #[must_use]
    pub const fn with_text(self, text: &'static str) -> Self {
        Self { text, ..self }
    }
}

fn check_options(options: &[u8]) -> Result<(), EdnsError> {
    let mut reader = Reader::new(options, 0);
    for _ in 0..OPTIONS_MAX {
        if reader.is_at_end() {
            return Ok(());
        }
        reader.u16().ok_or(EdnsError::Option)?;
        let len = reader.u16().ok_or(EdnsError::Option)?;
        reader.bytes(usize::from(len)).ok_or(EdnsError::Option)?;
    }
    if reader.is_at_end() { Ok(()) } else { Err(EdnsError::Option) }
}

fn cut_text(text: &str) -> &str {
    text.get(..text.floor_char_boundary(EDE_TEXT_BYTES_MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Edns =
        Edns { payload_bytes: 1232, version: 0, extended_rcode: 0, wants_dnssec: true };

    fn read(bytes: &[u8]) -> Result<Edns, EdnsError> {
        Edns::read(&mut Reader::new(bytes, 3))
    }

    #[test]
    fn written_record_reads_back() {
        let mut out = [0; 64];
        let len = PLAIN.write(Some(Ede::NETWORK_ERROR.with_text("192.0.2.1 timed out")), &mut out);
        let bytes = &out[..len.unwrap()];
        assert_eq!(read(bytes), Ok(PLAIN));
        assert_eq!(bytes.len(), OPT_BYTES + 6 + 19);
        assert!(bytes.ends_with(b"\x00\x17192.0.2.1 timed out"));
    }

    #[test]
    fn text_is_left_out_before_the_code_and_the_code_before_nothing() {
        let ede = Some(Ede::OTHER.with_text("a text"));
        assert_eq!(PLAIN.write(ede, &mut [0; OPT_BYTES + 8]), Some(OPT_BYTES + 6));
        assert_eq!(PLAIN.write(ede, &mut [0; OPT_BYTES + 5]), None);
        assert_eq!(PLAIN.write(None, &mut [0; OPT_BYTES]), Some(OPT_BYTES));
        assert_eq!(PLAIN.write(None, &mut [0; OPT_BYTES - 1]), None);
    }

    #[test]
    fn options_must_tile_the_record() {
        let with_options = |options: &[u8]| {
            let mut bytes = vec![0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
            bytes[10] = u8::try_from(options.len()).unwrap();
            bytes.extend(options);
            read(&bytes)
        };
        assert!(with_options(&[0, 10, 0, 1, 7]).is_ok());
        assert!(with_options(&[0; 4 * 60]).is_ok());
        assert_eq!(with_options(&[0, 10, 0, 2, 7]), Err(EdnsError::Option));
        assert_eq!(with_options(&[0, 10, 0]), Err(EdnsError::Option));
    }

    #[test]
    fn more_options_than_anyone_sends_are_refused() {
        let mut bytes = vec![0, 0, 41, 4, 208, 0, 0, 0, 0, 1, 4];
        bytes.extend([0; 260]);
        assert_eq!(read(&bytes), Err(EdnsError::Option));
    }

    #[test]
    fn record_cut_anywhere_is_truncated() {
        let whole = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
        for len in 3..whole.len() {
            assert_eq!(read(&whole[..len]), Err(EdnsError::Truncated));
        }
    }
}
