//! The store's file: whether what stands at a path is one, and an empty one.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use thiserror::Error;

/// What our files say of themselves: `hdUQ`.
pub(super) const APPLICATION: i32 = 0x6864_5551;

/// The form of the table; that of blocks stands in each of them.
pub(super) const FORM: i32 = 2;

/// `id` is the number of the block's last query. What is made here is nobody's yet: it is synced once, as a whole.
const SCHEMA: &str = "
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA page_size = 8192;
    PRAGMA auto_vacuum = INCREMENTAL;
    CREATE TABLE block (
        id INTEGER PRIMARY KEY,
        records INTEGER NOT NULL,
        earliest INTEGER NOT NULL,
        latest INTEGER NOT NULL,
        facts BLOB NOT NULL,
        octets BLOB NOT NULL
    );
";

/// Why a file cannot be the store.
#[derive(Debug, Error)]
pub enum Unusable {
    /// It is not ours to change.
    #[error("there is a file that is no store of queries; it is not touched")]
    Foreign,
    /// Another version wrote it.
    #[error("it has form {0}, this program writes form {FORM}; move it away to begin anew")]
    Form(i32),
    /// The system does not give it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// SQLite does not give it.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// Says what is wrong with the store at `path`, without making one.
///
/// # Errors
/// [`Unusable`].
pub fn probe(path: &Path) -> Result<(), Unusable> {
    if exists(path)? {
        return Ok(());
    }
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let meta = fs::metadata(directory)?;
    if meta.is_dir() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::NotADirectory).into()) }
}

/// Whether there is a store at `path`; an empty file is none yet.
///
/// Not while this process has it open: closing a file gives up the locks that SQLite has on it.
pub(super) fn exists(path: &Path) -> Result<bool, Unusable> {
    /// Where the header of an SQLite file has the two numbers (fileformat2, "The Database Header").
    const FORM_AT: usize = 60;
    const APPLICATION_AT: usize = 68;
    #[expect(clippy::disallowed_methods, reason = "control opens files")]
    let mut file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        outcome => outcome?,
    };
    let mut header = [0; 100];
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.read_exact(&mut header).map_err(|_| Unusable::Foreign)?;
    let number = |at: usize| {
        header
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |octets| i32::from_be_bytes(*octets))
    };
    if !header.starts_with(b"SQLite format 3\0") || number(APPLICATION_AT) != APPLICATION {
        return Err(Unusable::Foreign);
    }
    if number(FORM_AT) == FORM { Ok(true) } else { Err(Unusable::Form(number(FORM_AT))) }
}

/// Makes an empty store at `path`: beside it first, so that what is there is whole.
pub(super) fn create(path: &Path) -> Result<(), Unusable> {
    let fresh = beside(path, "new");
    for left in [&fresh, &journal(&fresh, "-wal"), &journal(&fresh, "-shm")] {
        let _ = fs::remove_file(left);
    }
    // Nobody but the owner learns what others asked.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let connection = Connection::open_with_flags(&fresh, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.execute_batch(SCHEMA)?;
    connection.pragma_update(None, "user_version", FORM)?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    // Later that would take syncs of its own.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.close().map_err(|(_, error)| error)?;
    file.sync_all()?;
    // A journal without its file is worth nothing, and SQLite would take it for ours.
    for ending in ["-wal", "-shm"] {
        match fs::remove_file(journal(path, ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    fs::rename(&fresh, path)?;
    Ok(())
}

/// Where SQLite keeps something beside the file at `path`.
fn journal(path: &Path, ending: &str) -> PathBuf {
    let mut journal = path.as_os_str().to_owned();
    journal.push(ending);
    journal.into()
}

/// `path` with another ending behind its own.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".");
    beside.push(ending);
    PathBuf::from(beside)
}
