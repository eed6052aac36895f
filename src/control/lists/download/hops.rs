//! Where a download may lead. Whoever keeps a list decides where redirects go: not into the operator's network, unless the
//! operator's URL leads there itself, and never from https back to http.
//!
//! It is asked where names are looked up, so what is judged is what is connected to.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Why a redirect is not followed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(super) enum Astray {
    /// Its target has a private address, and the server that was asked first has none.
    #[error("it leads from a public address to a private one")]
    Private,
    /// What was asked for in secret would be asked for in clear.
    #[error("it leads from https to http")]
    Clear,
}

/// The hops of one download, looked up one after the other.
#[derive(Debug)]
pub(super) struct Hops {
    resolver: DefaultResolver,
    is_private: fn(IpAddr) -> bool,
    /// Whether the server that the operator named has private addresses alone; known from the first hop on.
    begins_privately: OnceLock<bool>,
    /// Whether some hop was over https.
    was_secret: AtomicBool,
}

impl Hops {
    /// Those of a download that is about to begin; `is_private` tells the addresses of this site and machine.
    pub(super) fn new(is_private: fn(IpAddr) -> bool) -> Self {
        Self {
            resolver: DefaultResolver::default(),
            is_private,
            begins_privately: OnceLock::new(),
            was_secret: AtomicBool::new(false),
        }
    }

    /// Whether the next hop may be one to `addresses`.
    fn judge(
        &self,
        is_secret: bool,
        mut addresses: impl Iterator<Item = IpAddr>,
    ) -> Result<(), Astray> {
        let was_secret = self.was_secret.fetch_or(is_secret, Ordering::Relaxed);
        if was_secret && !is_secret {
            return Err(Astray::Clear);
        }
        let Some(begins_privately) = self.begins_privately.get() else {
            // What the operator names may be anywhere.
            let is_private = addresses.all(self.is_private);
            self.begins_privately.get_or_init(|| is_private);
            return Ok(());
        };
        if !begins_privately && addresses.any(self.is_private) {
            return Err(Astray::Private);
        }
        Ok(())
    }
}

impl Resolver for Hops {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.resolver.resolve(uri, config, timeout)?;
        let is_secret = uri.scheme_str() == Some("https");
        self.judge(is_secret, found.iter().map(|address| address.ip()))
            .map_err(|astray| ureq::Error::Other(astray.into()))?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rebinding::is_private_address;

    #[test]
    fn only_a_download_that_begins_privately_may_become_private() {
        let (public, private) = ("9.9.9.9", "192.168.1.1");
        for (hops, expected) in [
            (&[&[public][..], &[public]][..], Ok(())),
            (&[&[public], &["127.0.0.1"]], Err(Astray::Private)),
            (&[&[public], &["::ffff:10.0.0.1"]], Err(Astray::Private)),
            (&[&[public], &[public], &[public, private]], Err(Astray::Private)),
            (&[&[public], &["fe80::1"]], Err(Astray::Private)),
            (&[&[private], &[private], &[public], &["::1"]], Ok(())),
            (&[&["127.0.0.1", "::1"], &[private]], Ok(())),
        ] {
            let guard = Hops::new(is_private_address);
            let outcome = hops.iter().try_for_each(|addresses| {
                guard.judge(false, addresses.iter().map(|address| address.parse().unwrap()))
            });
            assert_eq!(outcome, expected, "{hops:?}");
        }
    }

    #[test]
    fn what_was_secret_once_stays_so() {
        let address = || std::iter::once(IpAddr::from([9, 9, 9, 9]));
        let hops = Hops::new(is_private_address);
        let outcomes =
            [false, false, true, true, false].map(|is_secret| hops.judge(is_secret, address()));
        assert_eq!(outcomes, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Astray::Clear)]);
    }
}
