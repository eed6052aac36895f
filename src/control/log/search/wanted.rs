//! Which queries of a block a search means. What is said of names, clients and what queries have in common is asked once for each
//! entry of the block's dictionaries, not for each query.

use std::net::IpAddr;

use super::{Filter, NameFilter, Stored, stored, text};
use crate::observe::log::{Block, Fact, Row, may_hold};
use crate::wire::{Name, NameBuf};

/// A filter, ready to be asked.
pub(super) struct Wanted<'f> {
    filter: &'f Filter,
    names: Names,
    client: Option<IpAddr>,
}

/// Which names are meant.
enum Names {
    All,
    Contain {
        /// In lower case.
        text: String,
        /// The longest part of it that stands in a name as it does here, if the name needs no escapes.
        part: Vec<u8>,
    },
    Within(Box<NameBuf>),
}

impl<'f> Wanted<'f> {
    /// `None` when no query can be meant.
    pub(super) fn new(filter: &'f Filter) -> Option<Self> {
        let names = match &filter.name {
            None => Names::All,
            Some(NameFilter::Contains(text)) => {
                let text = text.to_ascii_lowercase();
                let parts = text.split(['.', '\\']).map(str::as_bytes);
                let part = parts.max_by_key(|part| part.len()).unwrap_or_default().to_vec();
                Names::Contain { text, part }
            }
            Some(NameFilter::Within(text)) => {
                let apex = text.trim_end_matches('.');
                let mut apex = NameBuf::from_text(if apex.is_empty() { "." } else { apex }).ok()?;
                apex.make_lower();
                Names::Within(Box::new(apex))
            }
        };
        let client = filter.client.map(|client| client.to_canonical());
        Some(Self { filter, names, client })
    }

    /// Whether the block with these `facts` may hold such a query.
    pub(super) fn may_be_in(&self, facts: &[u8]) -> bool {
        let Filter { group, list, how, qtype, rcode, .. } = self.filter;
        let within = match &self.names {
            Names::Within(apex) => Some(Fact::Within(apex.as_name())),
            Names::All | Names::Contain { .. } => None,
        };
        [
            within,
            self.client.map(Fact::Client),
            group.as_deref().map(Fact::Group),
            list.as_deref().map(Fact::List),
            how.map(Fact::How),
            qtype.map(Fact::Qtype),
            rcode.map(Fact::Rcode),
        ]
        .iter()
        .flatten()
        .all(|fact| may_hold(facts, fact))
    }

    /// Appends such queries of `block`, whose first one has the number `first`, to `found`, the last one first, until there are
    /// `limit`.
    pub(super) fn find(
        &self,
        block: &Block<'_>,
        first: i64,
        limit: usize,
        found: &mut Vec<Stored>,
    ) {
        let Filter { since_ms, until_ms, before, .. } = *self.filter;
        let shapes: Vec<bool> = block.shapes().map(|shape| self.means_shape(&shape)).collect();
        let clients: Vec<bool> = block
            .clients()
            .map(|client| self.client.is_none_or(|wanted| wanted == client))
            .collect();
        if !shapes.contains(&true) || !clients.contains(&true) {
            return;
        }
        let names: Vec<bool> = block.names().iter().map(|&name| self.names.mean(name)).collect();
        if !names.contains(&true) {
            return;
        }
        let is_meant = |flags: &[bool], number: usize| flags.get(number) == Some(&true);
        for at in (0..block.len()).rev() {
            let id = first.saturating_add_unsigned(at as u64);
            let time_ms = block.time_ms(at).and_then(|time| i64::try_from(time).ok());
            let (Some(place), Some(time_ms)) = (block.place(at), time_ms) else { continue };
            let is_meant = is_meant(&shapes, place.shape)
                && is_meant(&clients, place.client)
                && is_meant(&names, place.name)
                && before.is_none_or(|before| id < before)
                && since_ms.is_none_or(|since| time_ms >= since)
                && until_ms.is_none_or(|until| time_ms < until);
            if !is_meant {
                continue;
            }
            if found.len() >= limit {
                return;
            }
            found.extend(block.row(at).map(|row| stored(id, &row)));
        }
    }

    fn means_shape(&self, shape: &Row<'_>) -> bool {
        let Filter { group, list, how, qtype, rcode, .. } = self.filter;
        group.as_deref().is_none_or(|group| group == shape.group)
            && list.as_deref().is_none_or(|list| Some(list) == shape.list)
            && how.is_none_or(|how| how == shape.how)
            && qtype.is_none_or(|qtype| qtype == shape.qtype)
            && rcode.is_none_or(|rcode| Some(rcode) == shape.rcode)
    }
}

impl Names {
    fn mean(&self, name: Name<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Within(apex) => name.is_within(apex.as_name()),
            Self::Contain { text: wanted, part } => {
                let octets = name.as_bytes();
                let may_contain = part.is_empty()
                    || octets.windows(part.len()).any(|window| window == part)
                    || name.labels().flatten().any(|octet| !is_plain(*octet));
                may_contain && text(name).contains(wanted)
            }
        }
    }
}

/// Whether an octet of a label stands for itself in a name's text.
const fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_')
}
