//! Queries written down: a tap for each core, and the threads behind them.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::NodeError;
use crate::config::Config;
use crate::control::log::{self, Recorder, Setup};
use crate::observe::log::{LogCounters, Tap, queue};
use crate::policy::Published;

/// The query log of a node.
pub(super) struct Queries {
    recorder: Recorder,
    /// By core, until it is taken.
    taps: Mutex<Vec<Option<Tap>>>,
    counters: Vec<Arc<LogCounters>>,
}

impl Queries {
    /// Opens what queries are written to and starts the threads. `None` when they are written nowhere.
    ///
    /// # Errors
    /// [`NodeError::QueryLog`].
    pub(super) fn begin(
        config: &Config,
        cores: usize,
        published: &Arc<Published>,
    ) -> Result<Option<Self>, NodeError> {
        let Config { query_log, dnstap, node, .. } = config;
        if !log::is_on(query_log, dnstap) {
            return Ok(None);
        }
        let octets = log::octets(dnstap);
        let (mut taps, mut consumers, mut counters) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..cores {
            let (producer, consumer) = queue(query_log.queue_bytes);
            let own = Arc::<LogCounters>::default();
            taps.push(Some(Tap::new(producer, Arc::clone(&own), octets, query_log.sample)));
            consumers.push((consumer, Arc::clone(&own)));
            counters.push(own);
        }
        let recorder = Recorder::begin(Setup {
            query_log: query_log.clone(),
            dnstap: dnstap.clone(),
            listeners: node.listen.clone(),
            published: Arc::clone(published),
            cores: consumers,
        })?;
        Ok(Some(Self { recorder, taps: Mutex::new(taps), counters }))
    }

    /// The tap of `core`, once.
    pub(super) fn tap(&self, core: usize) -> Option<Tap> {
        let mut taps = self.taps.lock().unwrap_or_else(PoisonError::into_inner);
        taps.get_mut(core).and_then(Option::take)
    }

    /// Where they are searched, and what is seen most of is counted.
    pub(super) const fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// What is counted, by core.
    pub(super) fn counters(&self) -> Vec<Arc<LogCounters>> {
        self.counters.clone()
    }

    /// Writes the last queries down, once the cores are done.
    pub(super) fn end(&self) {
        self.recorder.end();
    }
}

/// What is wrong with the store at `path`, in words for the operator.
///
/// # Errors
/// [`NodeError::QueryLog`].
pub(super) fn check(path: Option<&Path>) -> Result<(), NodeError> {
    let Some(path) = path else { return Ok(()) };
    log::probe(path).map_err(|cause| log::BeginError::Store { path: path.to_owned(), cause }.into())
}
