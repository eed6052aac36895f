//! What a line of a list says, in one form for all syntaxes.

use ipnet::IpNet;

use crate::wire::name::NAME_BYTES_MAX;
use crate::wire::{Name, NameBuf, Rtype};

/// Which names a rule covers, seen from its owner.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reach {
    /// The owner alone.
    Exact,
    /// All names below the owner, but not the owner.
    Below,
    /// The owner and all names below it.
    AtAndBelow,
}

impl Reach {
    /// Whether the rule covers a name that is its owner (`is_at`), or one below.
    #[must_use]
    pub const fn covers(self, is_at: bool) -> bool {
        match self {
            Self::Exact => is_at,
            Self::Below => !is_at,
            Self::AtAndBelow => true,
        }
    }
}

/// What is to happen to a question that a rule covers.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verb {
    /// The answer that the operator chose for the list.
    Block,
    /// Nothing: the question is resolved as if no lower rule were there.
    Allow,
    /// The name does not exist.
    Nxdomain,
    /// The name exists, without data.
    Nodata,
    /// No answer at all.
    Drop,
    /// Over UDP an empty answer with TC, over a stream as if allowed.
    TcpOnly,
    /// The records that come with the rule, and NODATA for other types.
    Local,
}

/// What a rule's owner is compared with.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Trigger {
    /// The name asked for, and those that an answer's aliases lead to.
    Qname,
    /// The name of a server of the zone.
    Nsdname,
    /// The address of him who asks; of addresses alone.
    Client,
}

/// Whom a rule is about.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// A name.
    Name(Name<'a>),
    /// Addresses: of an answer, or of him who asks.
    Addresses(IpNet),
}

/// One record of local data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LocalRecord<'a> {
    /// Its type. Of a CNAME, see [`LocalRecord::target`].
    pub rtype: Rtype,
    /// Its lifetime in seconds.
    pub ttl: u32,
    /// Its data in wire form, without compression.
    pub rdata: &'a [u8],
}

impl LocalRecord<'_> {
    /// The name that a CNAME leads the question for `asked` to: its target, or with a `*` in front `asked` in the place of that.
    ///
    /// `None` for other types, and when the name would have more than 255 octets (RFC 1035 §2.3.4).
    #[must_use]
    pub fn target(&self, asked: Name<'_>) -> Option<NameBuf> {
        if self.rtype != Rtype::CNAME {
            return None;
        }
        let Some(below) = self.rdata.strip_prefix(b"\x01*") else {
            return Some(NameBuf::new(Name::parse(self.rdata).ok()?));
        };
        let (_, asked) = asked.as_bytes().split_last()?;
        let mut joined = [0; NAME_BYTES_MAX];
        let len = asked.len() + below.len();
        let (front, back) = joined.get_mut(..len)?.split_at_mut(asked.len());
        front.copy_from_slice(asked);
        back.copy_from_slice(below);
        Some(NameBuf::new(Name::parse(&joined[..len]).ok()?))
    }
}

/// The types that a rule is for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TypeSet {
    /// If any, these alone.
    pub only: Vec<Rtype>,
    /// Never these.
    pub except: Vec<Rtype>,
}

impl TypeSet {
    /// Whether all types are meant.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.only.is_empty() && self.except.is_empty()
    }
}

/// One part of a selector of clients.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Client {
    /// Those at these addresses.
    At(IpNet),
    /// The one that the operator calls so.
    Named(String),
}

/// The clients that a rule is for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientSet {
    /// If any, these alone.
    pub only: Vec<Client>,
    /// Never these.
    pub except: Vec<Client>,
}

impl ClientSet {
    /// Whether all clients are meant.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.only.is_empty() && self.except.is_empty()
    }
}

/// One rule, as its list states it.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    /// Whom it is about.
    pub owner: Owner<'a>,
    /// What the owner is compared with. Addresses with [`Trigger::Qname`] are those in an answer.
    pub trigger: Trigger,
    /// Which names it covers; means nothing for addresses.
    pub reach: Reach,
    /// What is to happen.
    pub verb: Verb,
    /// The data of [`Verb::Local`].
    pub record: Option<LocalRecord<'a>>,
    /// Whether it outranks rules that are not.
    pub is_important: bool,
    /// Whether it stems from a response policy zone, which has an order of its own: see the [module](super).
    pub is_zoned: bool,
    /// Whether it rewrites, or, as an allowance, takes rewriting back: see the [module](super).
    pub is_rewrite: bool,
    /// Whether it takes back, in all lists of its kind, the rules that are the same but for this.
    pub cancels: bool,
    /// Names that it is not for, nor for those below them.
    pub except: &'a [NameBuf],
    /// The types that it is for.
    pub types: &'a TypeSet,
    /// The clients that it is for.
    pub clients: &'a ClientSet,
}

/// Whether a list blocks or allows what it names.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// Its rules mean what they say.
    Block,
    /// Whatever its rules say, they allow.
    Allow,
}

/// A set of lists, by their numbers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lists([u64; 4]);

impl Lists {
    /// All that there can be.
    pub const ALL: Self = Self([u64::MAX; 4]);

    /// Adds one.
    pub fn insert(&mut self, list: u8) {
        self.0[usize::from(list >> 6)] |= 1 << (list & 63);
    }

    /// Takes one out.
    pub fn remove(&mut self, list: u8) {
        self.0[usize::from(list >> 6)] &= !(1 << (list & 63));
    }

    /// All but those in `others`.
    #[must_use]
    pub fn except(&self, others: Self) -> Self {
        let mut rest = *self;
        rest.0.iter_mut().zip(others.0).for_each(|(own, other)| *own &= !other);
        rest
    }

    /// Whether `list` is among them.
    #[inline]
    #[must_use]
    pub const fn contains(&self, list: u8) -> bool {
        self.0[(list >> 6) as usize] >> (list & 63) & 1 != 0
    }
}

impl FromIterator<u8> for Lists {
    fn from_iter<T: IntoIterator<Item = u8>>(lists: T) -> Self {
        let mut set = Self::default();
        lists.into_iter().for_each(|list| set.insert(list));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_takes_in_the_name_asked_for_as_far_as_there_is_room() {
        let name = |text: &str| NameBuf::from_text(text).unwrap();
        let garden = name("*.garden.example");
        let record = |rtype, rdata| LocalRecord { rtype, ttl: 0, rdata };
        let target = |asked: &str| {
            let record = record(Rtype::CNAME, garden.as_name().as_bytes());
            record.target(name(asked).as_name()).map(|target| target.as_name().to_string())
        };
        assert_eq!(target("x.test").unwrap(), "x.test.garden.example.");
        assert_eq!(target(".").unwrap(), "garden.example.");
        // 255 octets, one of them for the root: 239 are left for the name asked for.
        let label = "a".repeat(63);
        let long = |last: usize| format!("{label}.{label}.{label}.{}", "a".repeat(last));
        assert_eq!(target(&long(46)).unwrap().len(), 254);
        assert_eq!(target(&long(47)), None);
        let asked = name("x.test");
        let plain = name("y.example");
        let alias = record(Rtype::CNAME, plain.as_name().as_bytes());
        let led = alias.target(asked.as_name()).unwrap();
        assert_eq!(led.as_name().as_bytes(), plain.as_name().as_bytes());
        assert!(record(Rtype::A, &[192, 0, 2, 1]).target(asked.as_name()).is_none());
        assert!(record(Rtype::CNAME, b"\x05cut").target(asked.as_name()).is_none());
    }
}
