//! From the texts of all lists to one image, one text at a time, within the memory that lists may take.

use std::io;

use ipnet::IpNet;
use thiserror::Error;

use super::text;
use crate::config::{List, ListKind};
use crate::policy::filter::syntax::{self, Finding, Report, Sink};
use crate::policy::filter::{Client, CompileError, Compiler, Kind, Owner, Rule};
use crate::wire::NameBuf;

/// Keys that are tried. That names crowd under one is so rare that a second such case in a row is a bug.
const KEYS_MAX: usize = 3;

/// What a rule takes beside its name, in bytes, until the image is built: its entry and its place in vectors that grow by
/// doubling.
const RULE_BYTES: usize = 72;

/// As many times lies a name in memory then.
const NAME_COPIES: usize = 5;

/// What a rule about addresses takes in the place of a name.
const NETWORK_BYTES: usize = 320;

/// What a rule takes that has a record, types, clients or exceptions, so that it probably differs from all others: itself, its
/// number and its bundle.
const DISTINCT_BYTES: usize = 320;

/// What each of these parts takes beside its octets.
const PART_BYTES: usize = 112;

/// As many times lies a part in memory.
const PART_COPIES: usize = 6;

/// Of what may be spent on compiling, an image is not more than one in so many bytes: each rule costs several times what it takes
/// in the image.
const IMAGE_PART: usize = 5;

/// Of all memory for lists, what may be spent on compiling. The rest is for the image in force, from the first one on: at every
/// refresh there is as much room as at the start.
pub(super) const fn share(bytes: usize) -> usize {
    bytes / (IMAGE_PART + 1) * IMAGE_PART
}

/// Why there is no image.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The rules do not go into one.
    #[error("{0}")]
    Compile(#[from] CompileError),
    /// The image is larger than what is reserved for it.
    #[error("it would take {0} bytes, more than a sixth of filter.memory")]
    Image(usize),
    /// No key.
    #[error("no random numbers from the kernel: {0}")]
    Entropy(#[from] io::Error),
}

/// What became of one list.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) report: Report,
    /// Length of the text.
    pub(super) bytes: usize,
}

impl Reading {
    /// The first line whose rule was left out for want of room, if any was.
    pub(super) fn cut_at(&self) -> Option<usize> {
        self.report.left_out.first.first().map(|remark| remark.line)
    }
}

/// An image and what it was made of.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) image: Vec<u8>,
    /// By list; `None` for one without a text.
    pub(super) readings: Vec<Option<Reading>>,
}

impl Compiled {
    /// Whether rules of some list were left out for want of room.
    pub(super) fn is_cut(&self) -> bool {
        self.readings.iter().flatten().any(|reading| reading.cut_at().is_some())
    }
}

/// The compiler of lists, with what it may take.
pub(super) struct Press<'a> {
    pub(super) lists: &'a [List],
    /// Bytes of memory for all that it holds: see [`share`].
    pub(super) bytes_max: usize,
    /// Draws the secret key of an image.
    pub(super) draw_key: fn() -> io::Result<[u8; 16]>,
}

impl Press<'_> {
    /// Makes an image of the lists whose text `text_of` gives; it is asked for one after the other, and again if it has to
    /// be. `stamp` is asked for when all are read.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn run(
        &self,
        mut text_of: impl FnMut(usize) -> Option<Vec<u8>>,
        mut stamp: impl FnMut() -> u64,
    ) -> Result<Compiled, Failure> {
        let mut keys = 1;
        loop {
            let mut compiler = Compiler::new((self.draw_key)()?);
            let mut readings = vec![None; self.lists.len()];
            let mut spent = 0;
            for number in self.order() {
                let Some(text) = text_of(number) else { continue };
                readings[number] = Some(self.read(number, &text, &mut compiler, &mut spent));
            }
            match compiler.finish(stamp()) {
                Err(CompileError::Crowded) if keys < KEYS_MAX => keys += 1,
                outcome => {
                    let image = outcome?;
                    // Every rule was charged for its part of it; the head is small.
                    let is_within = image.len() <= self.bytes_max / IMAGE_PART;
                    return if is_within {
                        Ok(Compiled { image, readings })
                    } else {
                        Err(Failure::Image(image.len()))
                    };
                }
            }
        }
    }

    /// Allow lists first: when there is not room for all, too much may be blocked otherwise.
    fn order(&self) -> impl Iterator<Item = usize> {
        let of = |kind| move |number: &usize| self.lists[*number].kind == kind;
        let all = 0..self.lists.len();
        all.clone().filter(of(ListKind::Allow)).chain(all.filter(of(ListKind::Block)))
    }

    fn read(
        &self,
        number: usize,
        text: &[u8],
        compiler: &mut Compiler,
        spent: &mut usize,
    ) -> Reading {
        let list = &self.lists[number];
        let kind = match list.kind {
            ListKind::Block => Kind::Block,
            ListKind::Allow => Kind::Allow,
        };
        let number = u8::try_from(number).expect("the config has at most 256 lists");
        let room = self.bytes_max.saturating_sub(text.len());
        let mut sink = Charged { compiler, list: number, kind, spent, room, is_cut: false };
        let report = syntax::read(text, text::syntax_of(text, list.syntax), &mut sink);
        Reading { report, bytes: text.len() }
    }
}

/// The compiler, as one list sees it.
struct Charged<'a> {
    compiler: &'a mut Compiler,
    list: u8,
    kind: Kind,
    /// Bytes that all lists have taken.
    spent: &'a mut usize,
    /// What they may.
    room: usize,
    is_cut: bool,
}

impl Sink for Charged<'_> {
    fn take(&mut self, rule: &Rule<'_>) -> Result<(), Finding> {
        let spent = *self.spent + cost(rule);
        // From the first one on, so that it can be told from which line on.
        self.is_cut |= spent > self.room;
        if self.is_cut {
            return Err(Finding::Room);
        }
        self.compiler.add(self.list, self.kind, rule).map_err(|error| match error {
            CompileError::Owner => Finding::Owner,
            CompileError::Extras => Finding::Value,
            CompileError::Rules | CompileError::Names | CompileError::Crowded => Finding::Room,
        })?;
        *self.spent = spent;
        Ok(())
    }
}

/// What `rule` takes at most, in bytes, until the image is built, and there.
fn cost(rule: &Rule<'_>) -> usize {
    let owner = match rule.owner {
        Owner::Name(name) => NAME_COPIES * name.as_bytes().len(),
        Owner::Addresses(_) => NETWORK_BYTES,
    };
    let part = |octets: usize| PART_BYTES + PART_COPIES * octets;
    let record = rule.record.map(|record| part(8 + record.rdata.len()));
    let types = || part(2 + 2 * (rule.types.only.len() + rule.types.except.len()));
    let types = (!rule.types.is_all()).then(types);
    let clients = || {
        let all = rule.clients.only.iter().chain(&rule.clients.except);
        part(2 + all.map(client_octets).sum::<usize>())
    };
    let clients = (!rule.clients.is_all()).then(clients);
    let octets = |name: &NameBuf| 1 + name.as_name().as_bytes().len();
    let except = || part(1 + rule.except.iter().map(octets).sum::<usize>());
    let except = (!rule.except.is_empty()).then(except);
    let parts = [record, types, clients, except];
    let distinct = if parts.iter().any(Option::is_some) { DISTINCT_BYTES } else { 0 };
    RULE_BYTES + owner + distinct + parts.into_iter().flatten().sum::<usize>()
}

/// What one part of a selector of clients takes.
fn client_octets(client: &Client) -> usize {
    match client {
        Client::At(IpNet::V4(_)) => 7,
        Client::At(IpNet::V6(_)) => 19,
        Client::Named(name) => 2 + name.len(),
    }
}
