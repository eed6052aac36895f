//! Readers of list lines. A line that cannot be read is counted and reported with its number; it never stops the list.
//!
//! What no syntax can express here (parts of names, regular expressions, rules for web pages) is *skipped*: the list is not
//! wrong, we only do not follow it. What makes no sense is *bad*.

mod adblock;
mod clients;
mod detect;
mod dnsmasq;
mod domains;
mod hosts;
mod name;
mod rewrite;
mod rpz;

use std::net::IpAddr;

use thiserror::Error;

use super::rule::{ClientSet, LocalRecord, Owner, Reach, Rule, Trigger, TypeSet, Verb};
use crate::wire::{Name, Rtype};

pub use detect::detect;

/// Longest line that is read. The longest name has 255 octets; lines with many types and clients some hundred.
const LINE_BYTES_MAX: usize = 4_096;

/// Remarks that are kept of each kind; those beyond are counted.
const REMARKS_MAX: usize = 50;

/// The TTL of an address that a hosts file or dnsmasq gives a name, in seconds. AdGuard Home's default for such answers is 10.
const ADDRESS_TTL: u32 = 10;

/// How a list is written.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Syntax {
    /// `0.0.0.0 name name`, as in /etc/hosts. Addresses other than null and loopback are given as answers. Exact.
    Hosts,
    /// One name per line, exact; `*.name` and `.name` with all names below.
    Domains,
    /// `||name^`, `@@||name^`, with modifiers; lines of the two above in between.
    Adblock,
    /// `address=/name/`, `server=/name/`, `local=/name/`; with all names below.
    Dnsmasq,
    /// A response policy zone.
    Rpz,
}

/// What is wrong with a line, or why it is not followed.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, PartialEq)]
pub enum Finding {
    /// It has more than 4096 octets.
    #[error("the line is longer than {LINE_BYTES_MAX} octets")]
    LongLine,
    /// A name is none.
    #[error("not a domain name")]
    Name,
    /// A name with other letters than ASCII has no form for the DNS (UTS 46).
    #[error("not an internationalised domain name")]
    Unicode,
    /// An address is none.
    #[error("not an IP address")]
    Address,
    /// A modifier has no value, or one that makes no sense.
    #[error("a modifier with a value that makes no sense")]
    Value,
    /// A directive is not complete.
    #[error("a directive that is not complete")]
    Incomplete,
    /// A record is none.
    #[error("not a record of a zone file")]
    Record,
    /// The owner of a policy record is no trigger.
    #[error("not a trigger of a response policy zone")]
    Trigger,
    /// Its owner has too many rules already.
    #[error("there are too many rules with conditions or data of their own for one owner")]
    Owner,
    /// The caller had no room for the rule.
    #[error("there is no room for more rules")]
    Room,
    /// It is about the elements of web pages.
    #[error("is about web pages, not about names")]
    Cosmetic,
    /// A pattern that is more than a name.
    #[error("a pattern that is more than a name")]
    Pattern,
    /// A modifier that has no meaning in the DNS, or none here.
    #[error("a modifier that does not apply here")]
    Modifier,
    /// A directive that filters nothing.
    #[error("a directive that filters nothing")]
    Directive,
    /// A name that hosts files give the machine itself.
    #[error("a name of the machine itself")]
    OwnName,
    /// A trigger or action of a response policy zone that is not offered.
    #[error("a trigger or record that is not offered")]
    NotOffered,
}

impl Finding {
    /// Whether the line is bad, rather than skipped or left out.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        match self {
            Self::LongLine
            | Self::Name
            | Self::Unicode
            | Self::Address
            | Self::Value
            | Self::Incomplete
            | Self::Record
            | Self::Trigger
            | Self::Owner => true,
            Self::Room
            | Self::Cosmetic
            | Self::Pattern
            | Self::Modifier
            | Self::Directive
            | Self::OwnName
            | Self::NotOffered => false,
        }
    }
}

/// A finding and its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Remark {
    /// The line, counted from 1.
    pub line: usize,
    /// What was found there.
    pub finding: Finding,
}

/// Findings of one kind.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Remarks {
    /// How many there are.
    pub count: u64,
    /// The first of them, fifty at most.
    pub first: Vec<Remark>,
}

/// What became of a list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Rules that were handed out. A line may have several, or none.
    pub rules: u64,
    /// What is bad.
    pub bad: Remarks,
    /// What is not followed.
    pub skipped: Remarks,
    /// What the caller had no room for.
    pub left_out: Remarks,
}

/// Takes rules; says whether it had room.
pub trait Sink {
    /// Takes one rule.
    ///
    /// # Errors
    /// What is to be told of its line.
    fn take(&mut self, rule: &Rule<'_>) -> Result<(), Finding>;
}

/// A function that says whether there was room.
impl<F: FnMut(&Rule<'_>) -> bool> Sink for F {
    fn take(&mut self, rule: &Rule<'_>) -> Result<(), Finding> {
        if self(rule) { Ok(()) } else { Err(Finding::Room) }
    }
}

/// Reads the whole list in `text` and hands its rules to `sink`, in order.
pub fn read(text: &[u8], syntax: Syntax, sink: &mut impl Sink) -> Report {
    // Editors of Windows put a byte order mark at the front.
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let mut reader = Reader { line: 0, report: Report::default(), sink };
    if syntax == Syntax::Rpz {
        rpz::read(text, &mut reader);
        return reader.report;
    }
    let mut adblock = adblock::Scratch::default();
    for line in text.split(|&octet| octet == b'\n') {
        reader.line += 1;
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if line.len() > LINE_BYTES_MAX {
            reader.remark(Finding::LongLine);
            continue;
        }
        let outcome = match syntax {
            Syntax::Hosts => hosts::line(line, &mut reader),
            Syntax::Domains => domains::line(line, &mut reader),
            Syntax::Adblock => adblock::line(line, &mut adblock, &mut reader),
            Syntax::Dnsmasq => dnsmasq::line(line, &mut reader),
            Syntax::Rpz => Ok(()),
        };
        if let Err(finding) = outcome {
            reader.remark(finding);
        }
    }
    reader.report
}

/// Where a list is read from and to.
struct Reader<'a, S> {
    line: usize,
    report: Report,
    sink: &'a mut S,
}

impl<S: Sink> Reader<'_, S> {
    fn remark(&mut self, finding: Finding) {
        let side = match finding {
            Finding::Room => &mut self.report.left_out,
            finding if finding.is_bad() => &mut self.report.bad,
            _ => &mut self.report.skipped,
        };
        side.count += 1;
        if side.first.len() < REMARKS_MAX {
            side.first.push(Remark { line: self.line, finding });
        }
    }

    fn emit(&mut self, rule: &Rule<'_>) -> Result<(), Finding> {
        self.sink.take(rule)?;
        self.report.rules += 1;
        Ok(())
    }

    /// A rule for all types and clients.
    fn emit_plain(&mut self, name: Name<'_>, reach: Reach, verb: Verb) -> Result<(), Finding> {
        self.emit(&Rule { reach, verb, ..plain(Owner::Name(name)) })
    }

    /// What a list means that gives `name` an address: null and loopback addresses block.
    fn emit_address(
        &mut self,
        name: Name<'_>,
        reach: Reach,
        address: IpAddr,
    ) -> Result<(), Finding> {
        if address.is_unspecified() || address.is_loopback() {
            return self.emit_plain(name, reach, Verb::Block);
        }
        let owner = Owner::Name(name);
        let (v4, v6);
        let (rtype, rdata) = match address {
            IpAddr::V4(address) => {
                v4 = address.octets();
                (Rtype::A, v4.as_slice())
            }
            IpAddr::V6(address) => {
                v6 = address.octets();
                (Rtype::AAAA, v6.as_slice())
            }
        };
        let record = Some(LocalRecord { rtype, ttl: ADDRESS_TTL, rdata });
        self.emit(&Rule { reach, verb: Verb::Local, record, ..plain(owner) })
    }
}

/// A rule that blocks exactly `owner`, for all.
const fn plain(owner: Owner<'_>) -> Rule<'_> {
    const ALL_TYPES: &TypeSet = &TypeSet { only: Vec::new(), except: Vec::new() };
    const ALL_CLIENTS: &ClientSet = &ClientSet { only: Vec::new(), except: Vec::new() };
    Rule {
        owner,
        trigger: Trigger::Qname,
        reach: Reach::Exact,
        verb: Verb::Block,
        record: None,
        is_important: false,
        is_zoned: false,
        is_rewrite: false,
        cancels: false,
        except: &[],
        types: ALL_TYPES,
        clients: ALL_CLIENTS,
    }
}

/// An address at the front of a line, without the scope that link-local ones may have.
fn address(word: &[u8]) -> Option<IpAddr> {
    let word = word.split(|&octet| octet == b'%').next()?;
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn text(word: &[u8]) -> Option<&str> {
    std::str::from_utf8(word).ok()
}

/// The line without what follows a `#` that stands at its beginning or behind a blank.
fn before_comment(line: &[u8]) -> &[u8] {
    let is_mark =
        |at: &usize| line[*at] == b'#' && (*at == 0 || line[at - 1].is_ascii_whitespace());
    let end = (0..line.len()).find(is_mark).unwrap_or(line.len());
    line[..end].trim_ascii()
}

#[cfg(test)]
mod tests;
