//! Adblock syntax as far as it speaks of names: `||name^` (the name and all below), `|name^` (the name), `@@` before them,
//! modifiers behind a `$`. Lines of hosts files and plain names may stand in between, as AdGuard Home allows.

use super::name::Folded;
use super::{Finding, Reader, Sink, address, clients, domains, hosts, plain};
use crate::policy::filter::rule::{ClientSet, Owner, Reach, Rule, TypeSet, Verb};

/// What marks rules for the elements of web pages, and scripts on them.
const COSMETIC: [&[u8]; 8] = [b"##", b"#@#", b"#?#", b"#$#", b"#%#", b"#@?#", b"#@$#", b"$$"];

/// Sets that lines fill one after the other.
#[derive(Default)]
pub(super) struct Scratch {
    types: TypeSet,
    clients: ClientSet,
    is_important: bool,
}

/// Reads one line.
pub(super) fn line<S: Sink>(
    line: &[u8],
    scratch: &mut Scratch,
    reader: &mut Reader<'_, S>,
) -> Result<(), Finding> {
    if line.starts_with(b"!") || (line.starts_with(b"[") && line.ends_with(b"]")) {
        return Ok(());
    }
    if is_cosmetic(line) {
        return Err(Finding::Cosmetic);
    }
    let (verb, rest) = match line.strip_prefix(b"@@") {
        Some(rest) => (Verb::Allow, rest),
        None => (Verb::Block, line),
    };
    if !rest.starts_with(b"|") {
        return if verb == Verb::Allow { Err(Finding::Pattern) } else { unanchored(rest, reader) };
    }
    let dollar = rest.iter().position(|&octet| octet == b'$');
    let (pattern, modifiers) = match dollar {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    scratch.read(modifiers)?;
    let (text, reach) = anchored(pattern).ok_or(Finding::Pattern)?;
    let folded;
    let owner = match (address(text), reach) {
        (Some(address), _) => Owner::Addresses(address.into()),
        (None, _) => {
            folded = Folded::read(text)?;
            Owner::Name(folded.name()?)
        }
    };
    let (types, clients) = (&scratch.types, &scratch.clients);
    let is_important = scratch.is_important;
    reader.emit(&Rule { reach, verb, is_important, types, clients, ..plain(owner) })
}

/// Lines without an anchor: of a hosts file, plain names, or patterns.
fn unanchored<S: Sink>(line: &[u8], reader: &mut Reader<'_, S>) -> Result<(), Finding> {
    let first = line.split(u8::is_ascii_whitespace).next().unwrap_or(line);
    if first.len() < line.len() && address(first).is_some() {
        return hosts::line(line, reader);
    }
    // `*.name` here is a pattern that the name itself does not match.
    if let Some(text) = line.strip_prefix(b"*.").filter(|text| !text.iter().any(is_special)) {
        let folded = Folded::read(text.strip_suffix(b"^").unwrap_or(text))?;
        return reader.emit_plain(folded.name()?, Reach::Below, Verb::Block);
    }
    if !line.starts_with(b"#") && (first.iter().any(is_special) || line.starts_with(b".")) {
        return Err(Finding::Pattern);
    }
    domains::line(line, reader)
}

fn is_special(octet: &u8) -> bool {
    matches!(octet, b'*' | b'^' | b'|' | b'/' | b'$' | b'=' | b'?' | b'&' | b':')
}

fn is_cosmetic(line: &[u8]) -> bool {
    // Comments are not: a mark that begins the line is one only when something follows it at once.
    let Some(at) = line.iter().position(|&octet| matches!(octet, b'#' | b'$')) else {
        return false;
    };
    let rest = &line[at..];
    let is_marked = COSMETIC.iter().any(|mark| rest.starts_with(mark));
    let follows = |after: &u8| !matches!(after, b' ' | b'#' | b'=' | b'-');
    is_marked && (at > 0 || rest.get(2).is_some_and(follows))
}

/// The name in `||name^`, `|name^`, `|name|` or `||*.name^`, and what the pattern reaches.
fn anchored(pattern: &[u8]) -> Option<(&[u8], Reach)> {
    let (text, reach) = match pattern.strip_prefix(b"||") {
        Some(text) => (text, Reach::AtAndBelow),
        None => (pattern.strip_prefix(b"|")?, Reach::Exact),
    };
    let text = text.strip_suffix(b"|").unwrap_or(text);
    let text = match (text.strip_suffix(b"^"), reach) {
        (Some(text), _) => text,
        (None, Reach::Exact) if pattern.ends_with(b"|") => text,
        // Without a separator it is the beginning of names, too.
        (None, _) => return None,
    };
    let (text, reach) = match (text.strip_prefix(b"*."), reach) {
        (Some(text), Reach::AtAndBelow) => (text, Reach::Below),
        (Some(_), _) => return None,
        (None, reach) => (text, reach),
    };
    (!text.iter().any(|octet| is_special(octet) && *octet != b':')).then_some((text, reach))
}

impl Scratch {
    fn read(&mut self, modifiers: Option<&[u8]>) -> Result<(), Finding> {
        self.is_important = false;
        for side in [&mut self.types.only, &mut self.types.except] {
            side.clear();
        }
        for side in [&mut self.clients.only, &mut self.clients.except] {
            side.clear();
        }
        let Some(modifiers) = modifiers else { return Ok(()) };
        for modifier in modifiers.split(|&octet| octet == b',') {
            let modifier = modifier.trim_ascii();
            if modifier == b"important" {
                self.is_important = true;
            } else if let Some(value) = modifier.strip_prefix(b"dnstype=") {
                clients::read_types(value, &mut self.types)?;
            } else if let Some(value) = modifier.strip_prefix(b"client=") {
                clients::read_clients(value, &mut self.clients)?;
            } else if matches!(modifier, b"dnstype" | b"client" | b"") {
                return Err(Finding::Value);
            } else {
                return Err(Finding::Modifier);
            }
        }
        Ok(())
    }
}
