//! What lists say now: whose lists count for which group of clients, and what those get who ask for a blocked name.

use bytes::Bytes;

use super::filter::{Image, Lists};
use crate::config;

/// The lists in force; immutable, shared by all cores, replaced as a whole.
#[derive(Debug)]
pub struct Filtering {
    image: Image<Bytes>,
    /// Which lists count, by group.
    groups: Box<[Lists]>,
}

impl Filtering {
    /// Joins `image`, in which list number *n* is `lists[n]`, with the sets of lists that count now for each group; the group
    /// with the number 0 is the default one.
    #[must_use]
    pub fn new(image: Image<Bytes>, lists: &[config::List], groups: Box<[Lists]>) -> Self {
        assert!(lists.len() <= config::LISTS_MAX && !groups.is_empty());
        Self { image, groups }
    }
}
