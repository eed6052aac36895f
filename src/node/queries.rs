//! Queries written down: a tap for each core, and the threads behind them.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::NodeError;
use crate::config::{Config, Dnstap};
use crate::control::files;
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
        if let Some(path) = &query_log.path {
            tracing::info!("query log: {} is opened", path.display());
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

/// What receivers of dnstap that are files or sockets lack now. A receiver may come later, so it is no mistake.
pub(super) fn unusable(section: &Dnstap) -> Vec<String> {
    let socket = section.socket.as_deref().and_then(|path| {
        let problem = match std::fs::metadata(path) {
            Err(error) => format!("{error}; it is tried again until a receiver has made it"),
            Ok(meta) if meta.file_type().is_socket() => return None,
            Ok(_) => "something stands there that is no socket".to_owned(),
        };
        Some(format!("dnstap.socket: {}: {problem}", path.display()))
    });
    let file = section.file.as_deref().and_then(|path| {
        let place = path.display();
        let problem = match std::fs::metadata(path) {
            Ok(meta) if !meta.is_file() => "something stands there that is no file".to_owned(),
            // A node sets a file that is there aside, and writes to a fresh one beside it.
            _ => files::probe_beside(path).err()?.to_string(),
        };
        Some(format!("dnstap.file: {place}: {problem}: nothing could be written there"))
    });
    socket.into_iter().chain(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_that_are_not_there_are_told() {
        let here = std::env::temp_dir();
        let with = |socket: &str, file: &str| {
            let place = |name: &str| (!name.is_empty()).then(|| here.join(name));
            unusable(&Dnstap { socket: place(socket), file: place(file), ..Dnstap::default() })
        };
        assert_eq!(with("", ""), [""; 0]);
        let fresh = format!("heimdall-{}.dnstap", std::process::id());
        assert_eq!(with("", &fresh), [""; 0]);
        assert!(!here.join(&fresh).exists(), "a check leaves nothing behind");
        let told = with("no/such/socket", "no/such/file");
        assert!(
            told[0].starts_with("dnstap.socket: ") && told[0].contains("tried again"),
            "{told:?}"
        );
        assert!(
            told[1].starts_with("dnstap.file: ") && told[1].contains("No such file"),
            "{told:?}"
        );
        let told = with(".", ".");
        assert!(told.iter().all(|text| text.contains("something stands there")), "{told:?}");
    }
}
