//! The place where what is switched by hand is kept: claimed, read once, and never written over before it was read. Only one
//! node writes there; what another node that runs keeps there is read, because that one may be on its way out.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::State;
use super::file::{self, Useless};
use crate::control::files;

/// The file by which a node keeps what it writes there to itself.
const CLAIM: &str = "switches.lock";

/// The file that holds what was switched, in the directory of the lists.
pub(super) const FILE: &str = "switches";

/// A directory with the file, as far as this node has it.
#[derive(Debug)]
pub(super) struct Shelf {
    directory: PathBuf,
    path: PathBuf,
    /// What keeps the file to this node.
    claim: Option<File>,
    /// What the file said was taken up, perhaps before the claim.
    is_known: bool,
    /// And since then nobody else can have written it.
    is_settled: bool,
}

impl Shelf {
    pub(super) fn new(directory: &Path) -> Self {
        let (path, directory) = (directory.join(FILE), directory.to_owned());
        Self { directory, path, claim: None, is_known: false, is_settled: false }
    }

    /// Whether the file was read before.
    pub(super) const fn is_known(&self) -> bool {
        self.is_known
    }

    /// Claims the file and reads it, as far as that has not been done; gives what it says where that may be news, and whether it may be
    /// written over.
    pub(super) fn take_up(&mut self) -> (Option<State>, io::Result<()>) {
        if self.is_settled {
            return (None, Ok(()));
        }
        let claimed = self.claim();
        if claimed.is_err() && self.is_known {
            return (None, claimed);
        }
        match file::read(&self.path) {
            Ok(state) => {
                self.is_known = true;
                self.is_settled = claimed.is_ok();
                (Some(state), claimed)
            }
            Err(useless) => (None, claimed.and_then(|()| self.give_up(&useless))),
        }
    }

    fn claim(&mut self) -> io::Result<()> {
        if self.claim.is_none() {
            files::make_directory(&self.directory)?;
            self.claim = Some(files::claim(&self.directory.join(CLAIM))?);
        }
        Ok(())
    }

    /// Moves a broken file out of the way. One that only cannot be read now may be a good one: it stays.
    fn give_up(&mut self, useless: &Useless) -> io::Result<()> {
        let path = self.path.display();
        if !useless.is_for_good() {
            let text = format!("{path} is neither taken up nor written over: {useless}");
            return Err(io::Error::other(text));
        }
        let aside = file::set_aside(&self.path).map_err(|error| {
            let text = format!("{path}: {useless}; it cannot be moved out of the way: {error}");
            io::Error::other(text)
        })?;
        let aside = aside.display();
        tracing::error!("{path}: {useless}; nothing is switched by hand, and it is now {aside}");
        (self.is_known, self.is_settled) = (true, true);
        Ok(())
    }

    /// Writes `state` down.
    pub(super) fn keep(&self, state: &State) -> io::Result<()> {
        file::keep(&self.path, state)
    }
}
