//! What the operator hears of certificates that are not their upstream's; at a bounded rate.

use std::cell::RefCell;
use std::fmt::Write as _;

use rustls::CertificateError;

use crate::config::Upstream;
use crate::time::Monotonic;
use crate::upstream::report::Window;

/// Refusals that are told within a [`Window`]: each upstream is tried again every few seconds.
const TOLD_MAX: u32 = 4;

/// Longest reason, in characters: it may quote the names of a certificate that nobody vouches for.
const REASON_CHARS_MAX: usize = 200;

/// One core's news about refused certificates.
#[derive(Debug)]
pub(super) struct Refusals {
    core: usize,
    window: RefCell<Window>,
}

impl Refusals {
    pub(super) fn new(core: usize) -> Self {
        Self { core, window: RefCell::default() }
    }

    /// Tells that the certificate of `upstream` was refused.
    pub(super) fn tell(&self, upstream: &Upstream, cause: &CertificateError, now: Monotonic) {
        if let Some(text) = self.text(upstream, cause, now) {
            tracing::warn!("{text}");
        }
    }

    fn text(
        &self,
        upstream: &Upstream,
        cause: &CertificateError,
        now: Monotonic,
    ) -> Option<String> {
        let unsaid = self.window.borrow_mut().admit(now, TOLD_MAX)?;
        let reason = reason(cause);
        let reason: String =
            reason.chars().take(REASON_CHARS_MAX).flat_map(char::escape_debug).collect();
        let mut text = format!("core {}: {upstream}: certificate refused: {reason}", self.core);
        if unsaid > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, " ({unsaid} refusal(s) before were not told)");
        }
        Some(text)
    }
}

fn reason(cause: &CertificateError) -> String {
    match cause {
        CertificateError::UnknownIssuer => "no root that is trusted here vouches for it".to_owned(),
        CertificateError::Other(error) => error.0.to_string(),
        cause => cause.to_string(),
    }
}
