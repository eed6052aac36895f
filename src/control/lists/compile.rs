//! From the texts of all lists to one image, one text at a time, within the memory that lists may take.

use std::io;

use thiserror::Error;

use super::text;
use crate::config::{List, ListKind};
use crate::policy::filter::syntax::{self, Report};
use crate::policy::filter::{CompileError, Compiler, Kind, Owner, Rule};

/// Keys that are tried. That names crowd under one is so rare that a second such case in a row is a bug.
const KEYS_MAX: usize = 3;

/// What a rule takes beside its name, in bytes, until the image is built: its entry and its place in vectors that grow by
/// doubling.
const RULE_BYTES: usize = 72;

/// As many times lies a name in memory then.
const NAME_COPIES: usize = 5;

/// What a record, types or clients take beside their own octets.
const EXTRAS_BYTES: usize = 192;

/// Why there is no image.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The rules do not go into one.
    #[error("{0}")]
    Compile(#[from] CompileError),
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
    /// There was not room for all of its rules.
    pub(super) is_cut: bool,
}

/// An image and what it was made of.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) image: Vec<u8>,
    /// By list; `None` for one without a text.
    pub(super) readings: Vec<Option<Reading>>,
}

/// The compiler of lists, with what it may take.
pub(super) struct Press<'a> {
    pub(super) lists: &'a [List],
    /// Bytes of memory for all that it holds.
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
                outcome => return Ok(Compiled { image: outcome?, readings }),
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
        let mut is_cut = false;
        let report =
            syntax::read(text, text::syntax_of(text, list.syntax), &mut |rule: &Rule<'_>| {
                let cost = cost(rule);
                if *spent + cost > room {
                    is_cut = true;
                    return false;
                }
                *spent += cost;
                compiler.add(number, kind, rule).is_ok()
            });
        Reading { report, bytes: text.len(), is_cut }
    }
}

/// What `rule` takes at most, in bytes, until the image is built.
fn cost(rule: &Rule<'_>) -> usize {
    let name = match rule.owner {
        Owner::Name(name) => name.as_bytes().len(),
        Owner::Addresses(_) => 32,
    };
    let record = rule.record.map_or(0, |record| EXTRAS_BYTES + 3 * record.rdata.len());
    let types = rule.types.only.len() + rule.types.except.len();
    let clients = rule.clients.only.len() + rule.clients.except.len();
    let extras = if types + clients == 0 { 0 } else { EXTRAS_BYTES + 8 * types + 128 * clients };
    RULE_BYTES + NAME_COPIES * name + record + extras
}
