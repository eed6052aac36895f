//! Adblock syntax as far as it speaks of names: `||name^` (the name and all below), `|name^` (the name), `@@` before them,
//! modifiers behind a `$`. `name^`, which as a pattern would also be in `othername^`, is read as `||name^`. Lines of hosts files and plain names may stand in between, as AdGuard Home allows.

use super::name::Folded;
use super::rewrite::{self, Rewrite};
use super::{ADDRESS_TTL, Finding, Reader, Sink, address, clients, domains, hosts, plain};
use crate::policy::filter::rule::{ClientSet, LocalRecord, Owner, Reach, Rule, TypeSet, Verb};
use crate::wire::{Name, NameBuf};

/// Names behind one `$denyallow`. No list has so many.
const EXCEPTED_MAX: usize = 100;

/// What marks rules for the elements of web pages, and scripts on them.
const COSMETIC: [&[u8]; 8] = [b"##", b"#@#", b"#?#", b"#$#", b"#%#", b"#@?#", b"#@$#", b"$$"];

/// Sets that lines fill one after the other.
#[derive(Default)]
pub(super) struct Scratch {
    types: TypeSet,
    clients: ClientSet,
    except: Vec<NameBuf>,
    rdata: Vec<u8>,
    rewrite: Option<Rewrite>,
    /// `$dnsrewrite` without a value.
    is_rewrite: bool,
    is_important: bool,
    cancels: bool,
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
    if rest.starts_with(b"/") && rest.len() > 1 {
        // A regular expression, which may have a `$` of its own.
        return Err(Finding::Pattern);
    }
    let dollar = rest.iter().position(|&octet| octet == b'$');
    let (pattern, modifiers) = match dollar {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    if !pattern.starts_with(b"|") && pattern != b"*" && !pattern.ends_with(b"^") {
        return if rest.len() < line.len() || dollar.is_some() {
            Err(Finding::Pattern)
        } else {
            unanchored(rest, reader)
        };
    }
    scratch.read(modifiers)?;
    let (text, reach) = anchored(pattern).ok_or(Finding::Pattern)?;
    let folded;
    let owner = match (address(text), reach) {
        // A rule for everything says for what not.
        _ if text == b"*" && scratch.is_wide() => return Err(Finding::Pattern),
        _ if text == b"*" => Owner::Name(Name::ROOT),
        (Some(address), _) => Owner::Addresses(address.into()),
        (None, _) => {
            folded = Folded::read(text)?;
            Owner::Name(folded.name()?)
        }
    };
    scratch.emit(owner, reach, verb, reader)
}

/// Lines without an anchor: of a hosts file, plain names, or patterns.
fn unanchored<S: Sink>(line: &[u8], reader: &mut Reader<'_, S>) -> Result<(), Finding> {
    let first = line.split(u8::is_ascii_whitespace).next().unwrap_or(line);
    if first.len() < line.len() && address(first).is_some() {
        return hosts::line(line, reader);
    }
    // `*.name` here is a pattern that the name itself does not match.
    if let Some(text) = line.strip_prefix(b"*.").filter(|text| !text.iter().any(is_special)) {
        let folded = Folded::read(text)?;
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

/// The name in `||name^`, `|name^`, `|name|`, `||*.name^`, `name^` or `*.name^`, and what the pattern reaches; `*` is itself.
fn anchored(pattern: &[u8]) -> Option<(&[u8], Reach)> {
    if pattern == b"*" {
        return Some((pattern, Reach::AtAndBelow));
    }
    let (text, reach) = match (pattern.strip_prefix(b"||"), pattern.strip_prefix(b"|")) {
        (Some(text), _) => (text, Reach::AtAndBelow),
        (None, Some(text)) => (text, Reach::Exact),
        (None, None) => (pattern, Reach::AtAndBelow),
    };
    let text = text.strip_suffix(b"|").unwrap_or(text);
    // Whatever path follows, it is none of ours.
    let closed = text.strip_suffix(b"^").or_else(|| text.strip_suffix(b"/*"));
    let text = match (closed, reach) {
        (Some(text), _) => text,
        (None, Reach::Exact) if pattern.ends_with(b"|") => text,
        // Without a separator it is the beginning of names, too.
        (None, _) => return None,
    };
    let below = text.strip_prefix(b"*.").or_else(|| text.strip_prefix(b"."));
    let (text, reach) = match (below, reach) {
        (Some(text), Reach::AtAndBelow) => (text, Reach::Below),
        (Some(_), _) => return None,
        (None, reach) => (text, reach),
    };
    // Without an anchor at the front, one label is the end of far too many names.
    let is_name = pattern.starts_with(b"|") || text.contains(&b'.');
    let is_plain = !text.iter().any(|octet| is_special(octet) && *octet != b':');
    (is_name && is_plain).then_some((text, reach))
}

impl Scratch {
    fn clear(&mut self) {
        for side in [&mut self.types.only, &mut self.types.except] {
            side.clear();
        }
        for side in [&mut self.clients.only, &mut self.clients.except] {
            side.clear();
        }
        self.except.clear();
        self.rdata.clear();
        self.rewrite = None;
        (self.is_rewrite, self.is_important, self.cancels) = (false, false, false);
    }

    /// Whether a rule for all names would be one for all questions.
    fn is_wide(&self) -> bool {
        self.types.is_all() && self.clients.is_all() && self.except.is_empty()
    }

    fn read(&mut self, modifiers: Option<&[u8]>) -> Result<(), Finding> {
        self.clear();
        let Some(modifiers) = modifiers else { return Ok(()) };
        for modifier in modifiers.split(|&octet| octet == b',') {
            let modifier = modifier.trim_ascii();
            let (word, value) = match modifier.iter().position(|&octet| octet == b'=') {
                Some(at) => (&modifier[..at], Some(&modifier[at + 1..])),
                None => (modifier, None),
            };
            match (word, value) {
                (b"important", None) => self.is_important = true,
                (b"badfilter", None) => self.cancels = true,
                (b"dnsrewrite", None | Some(b"")) => self.is_rewrite = true,
                (b"dnsrewrite", Some(value)) => {
                    self.rdata.clear();
                    self.rewrite = Some(rewrite::read(value, &mut self.rdata)?);
                }
                (b"dnstype", Some(value)) => clients::read_types(value, &mut self.types)?,
                (b"client", Some(value)) => clients::read_clients(value, &mut self.clients)?,
                (b"denyallow", Some(value)) => self.read_except(value)?,
                (b"dnstype" | b"client" | b"denyallow" | b"", _) => return Err(Finding::Value),
                _ => return Err(Finding::Modifier),
            }
        }
        Ok(())
    }

    fn read_except(&mut self, value: &[u8]) -> Result<(), Finding> {
        for part in value.split(|&octet| octet == b'|') {
            self.except.push(NameBuf::new(Folded::read(part.trim_ascii())?.name()?));
        }
        if self.except.len() > EXCEPTED_MAX { Err(Finding::Value) } else { Ok(()) }
    }

    fn emit<S: Sink>(
        &self,
        owner: Owner<'_>,
        reach: Reach,
        verb: Verb,
        reader: &mut Reader<'_, S>,
    ) -> Result<(), Finding> {
        let (types, clients, except) = (&self.types, &self.clients, self.except.as_slice());
        let (is_important, cancels) = (self.is_important, self.cancels);
        let rule =
            Rule { reach, verb, is_important, cancels, except, types, clients, ..plain(owner) };
        match (self.rewrite, self.is_rewrite, verb) {
            (None, false, _) => reader.emit(&rule),
            (None, true, Verb::Allow) => reader.emit(&Rule { is_rewrite: true, ..rule }),
            (None, true, _) => Err(Finding::Value),
            // Taking back one rewrite of several is not offered.
            (Some(_), _, Verb::Allow) => Err(Finding::Modifier),
            (Some(Rewrite { verb, rtype }), _, _) => {
                let record =
                    rtype.map(|rtype| LocalRecord { rtype, ttl: ADDRESS_TTL, rdata: &self.rdata });
                reader.emit(&Rule { verb, record, is_rewrite: true, ..rule })
            }
        }
    }
}
