//! What the service manager is told: READY, RELOADING, STOPPING, and WATCHDOG while all workers are well (sd_notify(3)).

use std::time::Duration;

use sd_notify::NotifyState;

/// The line to the service manager; silent when there is none.
#[derive(Debug)]
pub(super) struct Notifier {
    /// How often the manager wants to hear from us, halved.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `WATCHDOG_USEC`.
    pub(super) fn new() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled().map(|period| period / 2) }
    }

    /// How often to ping; `None` without a watchdog.
    pub(super) const fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
    }

    pub(super) fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload begins; [`Notifier::ready`] ends it. The manager wants to know since when, so that it can tell this one from
    /// those that it has not asked for (systemd.service(5), `Type=notify-reload`).
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!("the service manager cannot be told since when: {error}"),
        }
    }

    pub(super) fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    pub(super) fn ping(&self) {
        if self.watchdog.is_some() {
            self.send(&[NotifyState::Watchdog]);
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!("the service manager cannot be told: {error}");
        }
    }
}
