//! dnsmasq's `address=/name/…/address`, `server=/name/…/` and `local=/name/…/`; each is for the names and all below them.

use super::name::Folded;
use super::{Finding, Reader, Sink, address};
use crate::policy::filter::rule::{Reach, Verb};
use crate::wire::Name;

/// Reads one line.
pub(super) fn line<S: Sink>(line: &[u8], reader: &mut Reader<'_, S>) -> Result<(), Finding> {
    if line.starts_with(b"#") {
        return Ok(());
    }
    let line = super::before_comment(line);
    let line = line.strip_prefix(b"--").unwrap_or(line);
    let (is_address, rest) = match (line.strip_prefix(b"address"), server(line)) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err(Finding::Directive),
    };
    let Some(value) = rest.trim_ascii_start().strip_prefix(b"=") else {
        return Err(Finding::Directive);
    };
    let value = value.trim_ascii_start();
    let Some((names, target)) = value.strip_prefix(b"/").and_then(split_last) else {
        // `server=192.0.2.1`: an upstream for everything.
        return Err(if is_address { Finding::Incomplete } else { Finding::Directive });
    };
    let action = match (target, is_address) {
        // dnsmasq itself answers the first with NXDOMAIN; here the operator says how a list answers.
        (b"", _) | (b"#", true) => Action::Verb(Verb::Block),
        (b"#", false) => Action::Verb(Verb::Allow),
        (target, true) => Action::Address(address(target).ok_or(Finding::Address)?),
        // Another upstream for these names filters nothing.
        (_, false) => return Err(Finding::Directive),
    };
    for text in names.split(|&octet| octet == b'/') {
        if let Err(finding) = emit(text, action, reader) {
            reader.remark(finding);
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Action {
    Verb(Verb),
    Address(std::net::IpAddr),
}

fn server(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(b"server").or_else(|| line.strip_prefix(b"local"))
}

/// What stands before the last slash, and behind it.
fn split_last(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = value.iter().rposition(|&octet| octet == b'/')?;
    Some((&value[..at], &value[at + 1..]))
}

fn emit<S: Sink>(text: &[u8], action: Action, reader: &mut Reader<'_, S>) -> Result<(), Finding> {
    let folded;
    let (name, reach) = if text == b"#" {
        (Name::ROOT, Reach::AtAndBelow)
    } else {
        let (text, reach) = match text.strip_prefix(b"*.") {
            Some(text) => (text, Reach::Below),
            None => (text.strip_prefix(b".").unwrap_or(text), Reach::AtAndBelow),
        };
        folded = Folded::read(text)?;
        (folded.name()?, reach)
    };
    match action {
        Action::Verb(verb) => reader.emit_plain(name, reach, verb),
        Action::Address(address) => reader.emit_address(name, reach, address),
    }
}
