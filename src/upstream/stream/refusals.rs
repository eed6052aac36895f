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
        let mut reason: String = reason(cause).chars().take(REASON_CHARS_MAX).collect();
        reason.retain(|letter| letter.is_ascii() && !letter.is_ascii_control());
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
        CertificateError::BadSignature => {
            "whoever signed it is none of the roots that are trusted here, though called the same"
                .to_owned()
        }
        CertificateError::Other(error) => error.0.to_string(),
        cause => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Authentication, Protocol};

    #[test]
    fn refusal_names_upstream_and_reason_at_a_bounded_rate_and_length() {
        let refusals = Refusals::new(3);
        let authentication =
            Authentication { name: Some("dns.example".to_owned()), ..Authentication::default() };
        let upstream = Upstream {
            address: "192.0.2.1:853".parse().unwrap(),
            protocol: Protocol::Tls(authentication),
        };
        let now = Monotonic::from_nanos(5);
        let told = |cause| refusals.text(&upstream, &cause, now);
        assert_eq!(
            told(CertificateError::UnknownIssuer).unwrap(),
            "core 3: tls://192.0.2.1:853#dns.example: certificate refused: no root that is trusted here vouches for it"
        );
        let namesake = told(CertificateError::BadSignature).unwrap();
        assert!(namesake.contains("none of the roots that are trusted here"), "{namesake}");
        let presented = vec!["\u{1b}[31m".repeat(1000)];
        let expected = "dns.example".try_into().unwrap();
        let hostile =
            told(CertificateError::NotValidForNameContext { expected, presented }).unwrap();
        assert!(hostile.contains("not valid for name \"dns.example\""), "{hostile}");
        assert!(hostile.len() < 1500 && !hostile.contains('\u{1b}'), "{hostile}");
        assert_eq!((0..9).filter_map(|_| told(CertificateError::Expired)).count(), 1);
        let later = now.after(std::time::Duration::from_secs(10));
        let next = refusals.text(&upstream, &CertificateError::Revoked, later).unwrap();
        assert!(next.ends_with("(8 refusal(s) before were not told)"), "{next}");
    }
}
