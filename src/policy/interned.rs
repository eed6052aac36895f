//! Names that the operator has given, for as long as the process lives: replies and records point to them, whatever the config
//! says by then.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// `name` for as long as the process lives. There are as many as lists and groups had names.
pub(super) fn interned(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let name = Box::leak(Box::<str>::from(name));
    names.insert(name);
    name
}
