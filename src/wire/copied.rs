//! The checking reader: a client's query taken apart octet by octet into fields of its own, before anybody looks at it.
//!
//! It shares no step with [`Query::parse`], which views a message in place, and must come to the same result for every message
//! (`tests/wire_model`). What differs between the two in production is a fault of one of them.

use super::edns::{Edns, EdnsError, OPTIONS_MAX};
use super::name::{LABEL_BYTES_MAX, NAME_BYTES_MAX};
use super::{Flags, Header, Malformed, NameError, Query, Rtype};

/// Longest question: a name, a type, a class.
const QUESTION_BYTES_MAX: usize = NAME_BYTES_MAX + 4;

/// Additional records accepted in a query, as [`Query::parse`] has it.
const ADDITIONAL_MAX: u16 = 4;

/// The octet from which on a label is a compression pointer.
const POINTER_MIN: u8 = 0xC0;

/// A query with one question that holds no reference into its message.
#[derive(Clone, Debug)]
pub struct CopiedQuery {
    header: Header,
    question: [u8; QUESTION_BYTES_MAX],
    question_len: usize,
    edns: Option<Edns>,
}

impl CopiedQuery {
    /// Reads `message` as a query. Allocates nothing.
    ///
    /// # Errors
    /// [`Malformed`]: the same as [`Query::parse`] gives.
    pub fn read(message: &[u8]) -> Result<Self, Malformed> {
        let mut octets = Octets(message.iter());
        let header = octets.header().ok_or(Malformed::Short)?;
        refuse_unusual(&header)?;
        let mut copy =
            Self { header, question: [0; QUESTION_BYTES_MAX], question_len: 0, edns: None };
        copy.take_name(&mut octets).map_err(Malformed::Name)?;
        for _ in 0..4 {
            let octet = octets.one().ok_or(Malformed::Question)?;
            copy.push(octet).ok_or(Malformed::Question)?;
        }
        let [_, _, _, additional] = header.counts;
        for _ in 0..additional {
            copy.take_record(&mut octets)?;
        }
        match octets.one() {
            None => Ok(copy),
            Some(_) => Err(Malformed::TrailingBytes),
        }
    }

    /// The query as all others see it.
    #[must_use]
    pub fn view(&self) -> Query<'_> {
        let question = self.question.get(..self.question_len).unwrap_or_default();
        Query::of_checked(self.header, question, self.edns)
    }

    fn push(&mut self, octet: u8) -> Option<()> {
        *self.question.get_mut(self.question_len)? = octet;
        self.question_len += 1;
        Some(())
    }

    fn take_name(&mut self, octets: &mut Octets<'_>) -> Result<(), NameError> {
        loop {
            let len = octets.one().ok_or(NameError::Truncated)?;
            match len {
                0 => return self.push(0).ok_or(NameError::TooLong),
                POINTER_MIN.. => return Err(NameError::Pointer),
                len if len > LABEL_BYTES_MAX => return Err(NameError::LabelType),
                // A root has to follow, so that much is too much whatever stands there.
                len if self.question_len + 1 + usize::from(len) >= NAME_BYTES_MAX => {
                    return Err(NameError::TooLong);
                }
                _ => {}
            }
            self.push(len).ok_or(NameError::TooLong)?;
            for _ in 0..len {
                let octet = octets.one().ok_or(NameError::Truncated)?;
                self.push(octet).ok_or(NameError::TooLong)?;
            }
        }
    }

    fn take_record(&mut self, octets: &mut Octets<'_>) -> Result<(), Malformed> {
        let owner_len = octets.skip_owner().ok_or(Malformed::Record)?;
        let rtype = octets.two().ok_or(Malformed::Record)?;
        if rtype != Rtype::OPT.0 {
            octets.skip(6).ok_or(Malformed::Record)?;
            let len = octets.two().ok_or(Malformed::Record)?;
            return octets.skip(len).ok_or(Malformed::Record);
        }
        if owner_len != 1 {
            return Err(Malformed::Record);
        }
        let edns = octets.opt().map_err(Malformed::Opt)?;
        match self.edns.replace(edns) {
            None => Ok(()),
            Some(_) => Err(Malformed::TwoOpts),
        }
    }
}

const fn refuse_unusual(header: &Header) -> Result<(), Malformed> {
    let [questions, answers, authorities, additional] = header.counts;
    if header.flags.has(Flags::QR) {
        Err(Malformed::Response)
    } else if header.flags.opcode() != 0 {
        Err(Malformed::Opcode(header.flags.opcode()))
    } else if header.flags.has(Flags::TC) {
        Err(Malformed::Truncated)
    } else if questions != 1 {
        Err(Malformed::QuestionCount(questions))
    } else if answers > 0 || authorities > 0 || additional > ADDITIONAL_MAX {
        Err(Malformed::RecordCount)
    } else {
        Ok(())
    }
}

/// A message, one octet after the other; there is no way back.
struct Octets<'a>(std::slice::Iter<'a, u8>);

impl Octets<'_> {
    fn one(&mut self) -> Option<u8> {
        self.0.next().copied()
    }

    fn two(&mut self) -> Option<u16> {
        Some(u16::from(self.one()?) << 8 | u16::from(self.one()?))
    }

    fn skip(&mut self, count: u16) -> Option<()> {
        (0..count).try_for_each(|_| self.one().map(|_| ()))
    }

    fn header(&mut self) -> Option<Header> {
        let (id, flags) = (self.two()?, Flags(self.two()?));
        Some(Header { id, flags, counts: [self.two()?, self.two()?, self.two()?, self.two()?] })
    }

    /// Steps over the owner of a record, which may end in a pointer; gives the octets that it has.
    fn skip_owner(&mut self) -> Option<usize> {
        let mut count = 0;
        loop {
            match self.one()? {
                0 => return Some(count + 1),
                POINTER_MIN.. => {
                    self.one()?;
                    return Some(count + 2);
                }
                len if len > LABEL_BYTES_MAX => return None,
                len => {
                    self.skip(len.into())?;
                    count += 1 + usize::from(len);
                }
            }
            if count >= NAME_BYTES_MAX {
                return None;
            }
        }
    }

    /// The rest of an OPT record, from its class on.
    fn opt(&mut self) -> Result<Edns, EdnsError> {
        let cut = EdnsError::Truncated;
        let payload_bytes = self.two().ok_or(cut)?;
        let (extended_rcode, version) = (self.one().ok_or(cut)?, self.one().ok_or(cut)?);
        let flags = self.two().ok_or(cut)?;
        let len = self.two().ok_or(cut)?;
        // Where the record is whole, what is in it is looked at; where it is not, that says enough.
        let mut options = Octets(self.0.as_slice().get(..usize::from(len)).ok_or(cut)?.iter());
        self.skip(len).ok_or(cut)?;
        options.tile().ok_or(EdnsError::Option)?;
        let wants_dnssec = flags & 0x8000 != 0;
        Ok(Edns { payload_bytes, version, extended_rcode, wants_dnssec })
    }

    /// Whether these are options and nothing else, and not too many.
    fn tile(&mut self) -> Option<()> {
        for _ in 0..OPTIONS_MAX {
            if self.0.len() == 0 {
                return Some(());
            }
            self.two()?;
            let len = self.two()?;
            self.skip(len)?;
        }
        (self.0.len() == 0).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x02\x03WwW\x07example\x00\x00\x1c\x00\x01\
        \xC0\x0C\x00\x01\x00\x01\x00\x00\x00\x00\x00\x01x\
        \x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x05\x00\x0a\x00\x01z";

    #[test]
    fn copy_says_what_the_view_says() {
        let copy = CopiedQuery::read(QUERY).unwrap();
        let view = Query::parse(QUERY).unwrap();
        assert_eq!(format!("{:?}", copy.view()), format!("{view:?}"));
        assert_eq!(copy.view().qname.to_string(), "WwW.example.");
        assert!(copy.view().wants_dnssec());
    }

    #[test]
    fn copy_holds_the_longest_name_and_no_longer_one() {
        let labels = |count: usize, last: usize| {
            let mut name = [&[63][..], &[b'a'; 63]].concat().repeat(count);
            name.push(u8::try_from(last).unwrap());
            name.extend(vec![b'b'; last]);
            [&QUERY[..11], &[0], &name, &[0, 0, 1, 0, 1]].concat()
        };
        let longest = labels(3, 61);
        let copy = CopiedQuery::read(&longest).unwrap();
        assert_eq!(copy.view().qname.as_bytes().len(), NAME_BYTES_MAX);
        let too_long = CopiedQuery::read(&labels(3, 62)).unwrap_err();
        assert_eq!(too_long, Malformed::Name(NameError::TooLong));
    }

    #[test]
    fn every_cut_and_every_other_octet_are_the_same_to_both_readers() {
        let same = |message: &[u8]| {
            let view = Query::parse(message).map(|query| format!("{query:?}"));
            let copy = CopiedQuery::read(message).map(|query| format!("{:?}", query.view()));
            assert_eq!(view, copy, "{message:02x?}");
        };
        for len in 0..=QUERY.len() {
            same(&QUERY[..len]);
        }
        for at in 0..QUERY.len() {
            for octet in 0..=255 {
                let mut message = QUERY.to_vec();
                message[at] = octet;
                same(&message);
                message.truncate(QUERY.len() - 3);
                same(&message);
            }
        }
    }
}
