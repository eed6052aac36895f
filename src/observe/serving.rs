//! What `serve` counts: one block per core, written by that core only.

use super::questions::QuestionCounters;
use super::text::{Exposition, Kind};
use super::{Counter, Durations, FilterHits, Gauge, Spread};
use crate::wire::{Malformed, Rcode, Rtype};

/// How a query reached us.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A stream.
    Tcp,
}

/// What can be switched off, as the config calls it.
pub(super) const OPTIMIZATIONS: [&str; 4] =
    ["zero_copy_parsing", "simd", "hot_cache", "filter_pre_filter"];

/// Why a message was not a query: the causes of [`Malformed`] without their details.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the variants are those of wire::Malformed")]
pub enum Fault {
    Short,
    Response,
    Opcode,
    Truncated,
    QuestionCount,
    RecordCount,
    Name,
    Question,
    Record,
    TwoOpts,
    Opt,
    TrailingBytes,
}

impl Fault {
    const ALL: [(Self, &'static str); 12] = [
        (Self::Short, "short"),
        (Self::Response, "response"),
        (Self::Opcode, "opcode"),
        (Self::Truncated, "truncated"),
        (Self::QuestionCount, "question_count"),
        (Self::RecordCount, "record_count"),
        (Self::Name, "name"),
        (Self::Question, "question"),
        (Self::Record, "record"),
        (Self::TwoOpts, "two_opts"),
        (Self::Opt, "opt"),
        (Self::TrailingBytes, "trailing_bytes"),
    ];
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Short => Self::Short,
            Malformed::Response => Self::Response,
            Malformed::Opcode(_) => Self::Opcode,
            Malformed::Truncated => Self::Truncated,
            Malformed::QuestionCount(_) => Self::QuestionCount,
            Malformed::RecordCount => Self::RecordCount,
            Malformed::Name(_) => Self::Name,
            Malformed::Question => Self::Question,
            Malformed::Record => Self::Record,
            Malformed::TwoOpts => Self::TwoOpts,
            Malformed::Opt(_) => Self::Opt,
            Malformed::TrailingBytes => Self::TrailingBytes,
        }
    }
}

/// RCODEs that are counted one by one; the last place takes all others.
const RCODES: [(Rcode, &str); 8] = [
    (Rcode::NOERROR, "NOERROR"),
    (Rcode::FORMERR, "FORMERR"),
    (Rcode::SERVFAIL, "SERVFAIL"),
    (Rcode::NXDOMAIN, "NXDOMAIN"),
    (Rcode::NOTIMP, "NOTIMP"),
    (Rcode::REFUSED, "REFUSED"),
    (Rcode::BADVERS, "BADVERS"),
    (Rcode(u16::MAX), "OTHER"),
];

/// The counters of one core's serving. Padded, so that no two cores write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ServingCounters {
    questions: QuestionCounters,
    faults: [Counter; Fault::ALL.len()],
    responses: [Counter; RCODES.len()],
    /// Replies that had to be cut and carry TC.
    pub truncated: Counter,
    /// Queries that got no reply by decision.
    pub dropped: Counter,
    /// Queries over their client's limit that got no reply.
    pub rate_dropped: Counter,
    /// Queries over their client's limit that got an empty reply with TC.
    pub rate_slipped: Counter,
    /// Queries over their client's limit that were refused.
    pub rate_refused: Counter,
    /// Clients whose bucket made room before it was full again.
    pub rate_forgotten: Gauge,
    /// How long clients waited whose answer was there, by samples.
    pub hit_durations: Durations,
    /// How long clients waited for whom somebody was asked.
    pub miss_durations: Durations,
    /// Queries answered from the cache.
    pub hits: Counter,
    /// Queries that the cache could not answer.
    pub misses: Counter,
    /// Misses that joined a question already being resolved.
    pub coalesced: Counter,
    /// Clients refused, or told to wait no more, because too many questions were in flight or too many clients waited.
    pub overload: Counter,
    /// Questions that had to make room for newer ones.
    pub evicted_questions: Counter,
    /// Questions being resolved.
    pub in_flight: Gauge,
    /// The most there have been.
    pub in_flight_peak: Gauge,
    /// Queries answered from local data.
    pub local: Counter,
    /// Queries that lists objected to, for their name or their answer.
    pub blocked: Counter,
    /// Queries answered by what another name has, because the operator wants it so.
    pub detours: Counter,
    /// What each list did.
    pub filter: FilterHits,
    /// Questions that no upstream answered.
    pub failures: Counter,
    /// Queries answered by a failure of a moment ago.
    pub failures_cached: Counter,
    /// Answers of upstreams that held private addresses for public names.
    pub rebindings: Counter,
    /// Messages that the checking reader copied.
    pub copied: Counter,
    /// Which of the `[optimizations]` the core goes by: 1 or 0, in the order of the config's documentation.
    pub optimizations: [Gauge; OPTIMIZATIONS.len()],
    /// Queries answered past the answer's lifetime.
    pub stale: Counter,
    /// Questions asked without a client that waits: ahead of an end, behind it, or for the warm-up list.
    pub refreshes: Counter,
    /// Answers put into the cache.
    pub inserts: Counter,
    /// Answers that made room for others before their time.
    pub evictions: Gauge,
    /// Answers that left because their time was over.
    pub expirations: Gauge,
    /// Answers that came back soon after they had made room.
    pub returns: Gauge,
    /// Answers that moved to the hot segment.
    pub promotions: Gauge,
    /// Answers that were flushed.
    pub flushed: Gauge,
    /// Answers forgotten because another core got something else.
    pub superseded: Gauge,
    /// Answers that survived the last restart.
    pub restored: Gauge,
    /// Answers in the cache.
    pub entries: Gauge,
    /// Bytes held by the cache.
    pub cache_bytes: Gauge,
}

impl ServingCounters {
    /// Counts a message that arrived over `transport` and asks for `qtype`; `None` when nobody has read what it asks for.
    #[inline]
    pub fn query(&self, transport: Transport, qtype: Option<Rtype>) {
        self.questions.note(transport, qtype);
    }

    /// All messages that arrived.
    #[must_use]
    pub fn queries(&self) -> u64 {
        self.questions.total()
    }

    /// Messages that arrived as datagrams.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.questions.datagrams()
    }

    /// Counts a message that is no query.
    pub fn fault(&self, malformed: Malformed) {
        let fault = Fault::from(malformed);
        for (counter, (known, _)) in self.faults.iter().zip(Fault::ALL) {
            if known == fault {
                counter.bump();
            }
        }
    }

    /// Counts a reply with `rcode`.
    #[inline]
    pub fn response(&self, rcode: Rcode) {
        let place = match rcode.0 {
            low @ 0..=5 => usize::from(low),
            16 => 6,
            _ => 7,
        };
        if let Some(counter) = self.responses.get(place) {
            counter.bump();
        }
    }

    /// Replies sent, by RCODE.
    pub fn responses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.responses.iter().zip(RCODES).map(|(count, (_, rcode))| (rcode, count.value()))
    }

    /// The part of look-ups that the cache answered, since the start; `None` before the first.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub fn hit_rate(&self) -> Option<f64> {
        let (hits, misses) = (self.hits.value(), self.misses.value());
        (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
    }

    /// Writes what `all` cores have in common: how long queries took.
    pub fn expose_durations<'c>(all: impl Iterator<Item = &'c Self>, out: &mut Exposition) {
        let (mut hits, mut misses) = (Spread::default(), Spread::default());
        for counters in all {
            hits.add(&counters.hit_durations);
            misses.add(&counters.miss_durations);
        }
        let name = "dns_query_duration_seconds";
        let help = "From a query's receipt to its reply; hits are sampled, each sample counts 64";
        for (cache, spread) in [("hit", hits), ("miss", misses)] {
            out.histogram(name, help, &[("cache", cache)], &spread);
        }
    }

    /// Writes all counters of `core`.
    pub fn expose(&self, core: usize, out: &mut Exposition) {
        let core = core.to_string();
        self.questions.expose(&core, out);
        let mut counter = |name, help, labels: &[(&str, &str)], value| {
            let labels = [labels, &[("core", core.as_str())]].concat();
            out.sample(Kind::Counter, name, help, &labels, value);
        };
        for (count, (_, cause)) in self.faults.iter().zip(Fault::ALL) {
            let labels = [("cause", cause)];
            counter("dns_malformed_total", "Messages that are no query", &labels, count.value());
        }
        for (count, (_, rcode)) in self.responses.iter().zip(RCODES) {
            let labels = [("rcode", rcode)];
            counter("dns_responses_total", "Replies sent", &labels, count.value());
        }
        for (verdict, count) in [
            ("dropped", &self.rate_dropped),
            ("slipped", &self.rate_slipped),
            ("refused", &self.rate_refused),
        ] {
            let (name, help) = ("dns_rate_limited_total", "Queries over their client's limit");
            counter(name, help, &[("verdict", verdict)], count.value());
        }
        let plain = [
            ("dns_truncated_total", "Replies cut, with TC", &self.truncated),
            ("dns_dropped_total", "Queries without a reply", &self.dropped),
            ("dns_cache_hits_total", "Queries answered from the cache", &self.hits),
            ("dns_cache_misses_total", "Queries not in the cache", &self.misses),
            ("dns_cache_inserts_total", "Answers stored", &self.inserts),
            ("dns_coalesced_total", "Misses that joined another", &self.coalesced),
            ("dns_overload_total", "Clients refused for want of room", &self.overload),
            ("dns_evicted_questions_total", "Questions that made room", &self.evicted_questions),
            ("dns_local_total", "Queries answered from local data", &self.local),
            ("dns_blocked_total", "Queries that lists objected to", &self.blocked),
            ("dns_detours_total", "Queries answered by what another name has", &self.detours),
            ("dns_resolution_failures_total", "Questions nobody answered", &self.failures),
            ("dns_cached_failures_total", "Queries not tried again yet", &self.failures_cached),
            ("dns_rebinding_answers_total", "Answers withheld for an address", &self.rebindings),
            ("dns_copied_total", "Messages copied before they were read", &self.copied),
            ("dns_stale_total", "Queries answered past the lifetime", &self.stale),
            ("dns_refreshes_total", "Questions asked without a client that waits", &self.refreshes),
        ];
        for (name, help, count) in plain {
            counter(name, help, &[], count.value());
        }
        for (name, help, count) in [
            ("dns_rate_forgotten_total", "Clients forgotten for others", &self.rate_forgotten),
            ("dns_cache_evictions_total", "Answers evicted before their time", &self.evictions),
            ("dns_cache_expirations_total", "Answers that were over", &self.expirations),
            ("dns_cache_returns_total", "Answers back soon after eviction", &self.returns),
            ("dns_cache_promotions_total", "Answers moved to the hot segment", &self.promotions),
            ("dns_cache_flushed_total", "Answers flushed", &self.flushed),
            ("dns_cache_superseded_total", "Answers older than another core's", &self.superseded),
            ("dns_cache_restored_total", "Answers read back at start", &self.restored),
        ] {
            counter(name, help, &[], count.value());
        }
        self.expose_optimizations(&core, out);
        let labels = [("core", core.as_str())];
        if let Some(rate) = self.hit_rate() {
            let help = "Part of the look-ups since the start that the cache answered";
            out.real(Kind::Gauge, "dns_cache_hit_rate", help, &labels, rate);
        }
        for (name, help, gauge) in [
            ("dns_questions_in_flight", "Questions being resolved", &self.in_flight),
            ("dns_questions_in_flight_peak", "The most there have been", &self.in_flight_peak),
            ("dns_cache_entries", "Answers in the cache", &self.entries),
            ("dns_cache_bytes", "Bytes held by the cache", &self.cache_bytes),
        ] {
            out.sample(Kind::Gauge, name, help, &labels, gauge.value());
        }
    }

    fn expose_optimizations(&self, core: &str, out: &mut Exposition) {
        for (switch, gauge) in OPTIMIZATIONS.into_iter().zip(&self.optimizations) {
            let help = "1 where the core goes by it, 0 where it is switched off or cannot be had";
            let labels = [("switch", switch), ("core", core)];
            out.sample(Kind::Gauge, "dns_optimization_in_use", help, &labels, gauge.value());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::*;

    #[test]
    fn each_rcode_lands_in_its_own_place() {
        let counters = ServingCounters::default();
        for (rcode, _) in RCODES {
            counters.response(rcode);
        }
        counters.response(Rcode(23));
        let counts = counters.responses.each_ref().map(Counter::value);
        assert_eq!(counts, [1, 1, 1, 1, 1, 1, 1, 2]);
    }

    #[test]
    fn exposition_names_core_and_cause() {
        let counters = ServingCounters::default();
        counters.fault(Malformed::Opcode(5));
        counters.query(Transport::Tcp, Some(Rtype::A));
        counters.hits.add(3);
        counters.misses.bump();
        let mut out = Exposition::default();
        counters.expose(3, &mut out);
        let text = out.finish(Format::Classic);
        assert!(text.contains("dns_malformed_total{cause=\"opcode\",core=\"3\"} 1\n"), "{text}");
        assert!(text.contains("dns_cache_hit_rate{core=\"3\"} 0.75\n"), "{text}");
        let asked = "dns_queries_total{proto=\"tcp\",type=\"A\",core=\"3\"} 1\n";
        assert!(text.contains(asked), "{text}");
        assert_eq!(counters.queries(), 1);
    }
}
