//! Lists of names that are blocked or allowed: their syntaxes, one immutable image of all lists, and who wins in it.
//!
//! A reader ([`syntax`]) turns the lines of a list into [`Rule`]s, a [`Compiler`] those of all lists into one [`Image`], and a
//! [`Matcher`] over its bytes tells which rule decides over a name. No file, no clock and no chance in here: texts, keys and
//! mapped bytes are handed in.
//!
//! # Who wins
//!
//! Of all rules that cover the name and are for this client and type, in the lists that count for him:
//!
//! 1. The higher class: any rule of an *allow list*, then *rewrite*, *important allowance*, *important block*, *allowance*,
//!    *block*. So AdGuard Home ranks them: allow lists are asked first, then rules with `$dnsrewrite`, then `@@||x^$important`,
//!    `||x^$important`, `@@||x^` and `||x^`.
//! 2. Within a class, the owner nearest to the name: the rule that says most about it gives the answer and is named. (AdGuard Home
//!    takes the one with more modifiers, and rules before lines of hosts files. What is blocked is the same.)
//! 3. Then the list with the lower number, then the line that comes first.
//!
//! `@@||x^$dnsrewrite` takes rewrites of the names that it covers back, those that are important only if it is itself. A rewrite of a name
//! to itself does not count. `$badfilter` takes back, in all lists of its kind, rules that are the same but for it.
//!
//! An allowance thus frees from all blocks of its class or lower, however near these are: `@@||example.org^` frees
//! `ads.example.org`, too.
//!
//! Response policy zones have an order of their own: of one zone only the nearest owner speaks, and of several zones only the
//! first that has one. Those that have the address of him who asks ([`Matcher::decide_client`]) come before those that have the
//! name. What a zone says then takes part as above: PASSTHRU as an allowance, everything else as a block.
//!
//! # What a name costs
//!
//! A stem, 64 octets for some 36 names: 1.8 octets per name are hot. Behind it lies, read only on a hit, a page with two octets and
//! the name itself for each, so that there is no false positive.
//!
//! A look-up hashes all suffixes of a name at once (they have the blocks of sixteen octets from its end in common), asks one word of the
//! filter about each, four at a time and without a branch between them, and is done if none may be listed. Only then is there
//! more to do: the page, and the rules of the name on it, of which most names have one.
//!
//! All rules of an owner are weighed for every question at or below it. So of those with types, clients, exceptions or a record it has
//! 64 at most, in all lists together; further ones are bad lines. Without such parts, the rules of one list for one owner differ in so
//! little that there are few.

pub mod rule;
pub mod syntax;

mod compile;
mod extras;
mod hash;
mod image;
mod layout;
mod matcher;
mod page;
mod stored;

pub use compile::{CompileError, Compiler};
pub use image::{Footprint, Image};
pub use layout::{Flaw, MAGIC};
pub use matcher::{Asker, Decision, Matcher};
pub use rule::{
    Client, ClientSet, Kind, Lists, LocalRecord, Owner, Reach, Rule, Trigger, TypeSet, Verb,
};

#[cfg(test)]
mod tests;
