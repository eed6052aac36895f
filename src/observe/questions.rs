//! Hot path. What clients ask for: messages by transport and type of question.

use super::text::{Exposition, Kind};
use super::{Counter, Transport};
use crate::wire::Rtype;

/// Types that are counted one by one.
const TYPES: [(u8, &str); 17] = [
    (1, "A"),
    (28, "AAAA"),
    (65, "HTTPS"),
    (64, "SVCB"),
    (12, "PTR"),
    (15, "MX"),
    (16, "TXT"),
    (2, "NS"),
    (6, "SOA"),
    (33, "SRV"),
    (5, "CNAME"),
    (35, "NAPTR"),
    (43, "DS"),
    (48, "DNSKEY"),
    (46, "RRSIG"),
    (52, "TLSA"),
    (255, "ANY"),
];

/// The place of all other types.
const OTHER: u8 = 17;
const _: () = assert!(OTHER as usize == TYPES.len());

/// The place of messages whose question was not read.
const NONE: u8 = OTHER + 1;

const PLACES: usize = NONE as usize + 1;

/// The place of each type with a number of one octet.
static PLACE_OF: [u8; 256] = {
    let mut places = [OTHER; 256];
    let mut place = 0;
    while place < OTHER {
        places[TYPES[place as usize].0 as usize] = place;
        place += 1;
    }
    places
};

/// Messages of clients.
#[derive(Debug, Default)]
pub(super) struct QuestionCounters {
    by_transport: [[Counter; PLACES]; 2],
}

impl QuestionCounters {
    /// Counts a message over `transport` that asks for `qtype`, if it is known to ask for anything.
    #[inline]
    pub(super) fn note(&self, transport: Transport, qtype: Option<Rtype>) {
        let place = match qtype {
            Some(Rtype(number)) => *PLACE_OF.get(usize::from(number)).unwrap_or(&OTHER),
            None => NONE,
        };
        let [udp, tcp] = &self.by_transport;
        let counters = match transport {
            Transport::Udp => udp,
            Transport::Tcp => tcp,
        };
        if let Some(counter) = counters.get(usize::from(place)) {
            counter.bump();
        }
    }

    /// All messages.
    pub(super) fn total(&self) -> u64 {
        self.by_transport.iter().flatten().map(Counter::value).sum()
    }

    /// Messages that came as datagrams.
    pub(super) fn datagrams(&self) -> u64 {
        let [udp, _] = &self.by_transport;
        udp.iter().map(Counter::value).sum()
    }

    /// Writes the counters of `core`.
    pub(super) fn expose(&self, core: &str, out: &mut Exposition) {
        let (name, help) = ("dns_queries_total", "Messages received from clients");
        let types = TYPES.map(|(_, rtype)| rtype);
        for (proto, counters) in ["udp", "tcp"].into_iter().zip(&self.by_transport) {
            for (rtype, count) in types.iter().chain(&["other", "none"]).zip(counters) {
                let labels = [("proto", proto), ("type", rtype), ("core", core)];
                out.sample(Kind::Counter, name, help, &labels, count.value());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::*;

    #[test]
    fn each_type_lands_in_its_own_place_and_strangers_together() {
        let counters = QuestionCounters::default();
        for (number, name) in TYPES {
            assert_eq!(Rtype(number.into()).to_string(), name);
            counters.note(Transport::Tcp, Some(Rtype(number.into())));
        }
        for number in [0, 3, 254, 256, 65_535] {
            counters.note(Transport::Udp, Some(Rtype(number)));
        }
        counters.note(Transport::Udp, None);
        let mut out = Exposition::default();
        counters.expose("2", &mut out);
        let text = out.finish(Format::Classic);
        for (_, name) in TYPES {
            let line = format!("dns_queries_total{{proto=\"tcp\",type=\"{name}\",core=\"2\"}} 1\n");
            assert!(text.contains(&line), "no {line} in {text}");
        }
        assert!(text.contains("{proto=\"udp\",type=\"other\",core=\"2\"} 5\n"), "{text}");
        assert!(text.contains("{proto=\"udp\",type=\"none\",core=\"2\"} 1\n"), "{text}");
        assert_eq!((counters.total(), counters.datagrams()), (23, 6));
    }
}
