//! Hosts files: read at the start and by a check, as a whole and bounded, and joined with all other local names.

use std::hash::Hasher as _;
use std::io::Read as _;
use std::path::Path;

use siphasher::sip::SipHasher24;
use thiserror::Error;

use super::NodeError;
use crate::config::Config;
use crate::policy::local::Sections;
use crate::policy::{HostsFile, LocalData};

/// Longest text of all files together, in bytes: some three million lines.
const BYTES_MAX: u64 = 128 << 20;

/// A hosts file cannot be read.
#[derive(Debug, Error)]
#[error("hosts.files: {path}: {cause}")]
pub struct Unreadable {
    path: String,
    #[source]
    cause: std::io::Error,
}

/// All local names of `config`, those of its hosts files included, what is to be told to the operator, and a fingerprint of the
/// files.
///
/// # Errors
/// [`NodeError`] for a file that cannot be read, and for a zone or rewrite that is broken.
pub(super) fn local(config: &Config) -> Result<(LocalData, Vec<String>, u64), NodeError> {
    let mut files = Vec::with_capacity(config.hosts.files.len());
    let (mut left, mut hasher) = (BYTES_MAX, SipHasher24::new());
    for path in &config.hosts.files {
        let place = path.display().to_string();
        let text = read(path, left).map_err(|cause| Unreadable { path: place.clone(), cause })?;
        left -= text.len() as u64;
        hasher.write_u64(text.len() as u64);
        hasher.write(&text);
        files.push(HostsFile { place, text });
    }
    let sections = Sections {
        zones: &config.local,
        special: config.special,
        forward: &config.forward,
        rewrites: &config.rewrites,
        hosts: &config.hosts,
        hosts_files: &files,
    };
    let (data, complaints) = LocalData::compile(&sections)?;
    if !files.is_empty() {
        tracing::info!(
            "hosts files: {} names in {} KiB, those of addresses included",
            data.hosts_names(),
            data.hosts_bytes().div_ceil(1 << 10)
        );
    }
    Ok((data, complaints, hasher.finish()))
}

fn read(path: &Path, left: u64) -> std::io::Result<Vec<u8>> {
    #[expect(clippy::disallowed_methods, reason = "the start is the edge")]
    let file = std::fs::File::open(path)?;
    let mut text = Vec::new();
    file.take(left + 1).read_to_end(&mut text)?;
    if text.len() as u64 > left {
        let problem = format!("with this file all are longer than {BYTES_MAX} bytes");
        return Err(std::io::Error::other(problem));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_file_is_cut_before_it_fills_the_memory_and_a_missing_one_is_named() {
        let error = |path: &str| {
            let mut config = Config::default();
            config.hosts.files = vec![path.into()];
            local(&config).unwrap_err().to_string()
        };
        let endless = read(Path::new("/dev/zero"), 1_000).unwrap_err().to_string();
        assert!(endless.contains("longer than 134217728 bytes"), "{endless}");
        assert!(error("/nowhere/hosts").starts_with("hosts.files: /nowhere/hosts: No such file"));
    }
}
