//! The file of what is switched by hand: two lines of which the first says what it is, and a JSON document that the second line
//! holds the checksum of. Replaced whole or not at all; believed only as a whole.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::{DISABLED_MAX, Entry, State, Until};
use crate::control::files::{self, Distrust, Unfinished};
use crate::policy::{Action, OVERRIDES_MAX, Override};
use crate::time::CacheTime;
use crate::wire::NameBuf;

/// How every such file begins.
const MAGIC: &[u8] = b"heimdall-uring switches 1\n";

/// Longest file that is read: as many overrides as there may be, with names as long as they may be.
const BYTES_MAX: u64 = 16 << 20;

/// Where a file goes that is of no use.
const ASIDE: &str = "bad";

/// Why a file is not taken up.
#[derive(Debug, Error)]
pub(super) enum Useless {
    #[error("{0}")]
    Distrust(#[from] Distrust),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is longer than {BYTES_MAX} bytes")]
    Long,
    #[error("it does not begin as such a file does")]
    Foreign,
    #[error("its checksum does not match")]
    Checksum,
    #[error("{0} is not what this program writes")]
    Content(&'static str),
}

impl Useless {
    /// Whether the file is none of ours, or broken: looking again would find the same.
    pub(super) const fn is_for_good(&self) -> bool {
        match self {
            Self::Long | Self::Foreign | Self::Checksum | Self::Content(_) => true,
            Self::Distrust(_) | Self::Io(_) => false,
        }
    }
}

/// Moves the file at `path` out of the way, and gives where it is then.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = files::beside(path, ASIDE);
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Puts `state` in the place of what the file at `path` says.
pub(super) fn keep(path: &Path, state: &State) -> io::Result<()> {
    let body = document(state).to_string();
    let mut file = Unfinished::begin(path, MAGIC)?;
    file.append(MAGIC)?;
    file.append(format!("crc32 {:08x}\n{body}\n", checksum(&body)).as_bytes())?;
    let placed = file.place()?;
    if let Some(doubt) = placed.doubt {
        tracing::warn!("{}: the disk may not know its place yet: {doubt}", path.display());
    }
    Ok(())
}

/// What the file at `path` says; nothing when there is none.
pub(super) fn read(path: &Path) -> Result<State, Useless> {
    let Some((file, meta)) = files::open(path)? else { return Ok(State::default()) };
    if meta.len() > BYTES_MAX {
        return Err(Useless::Long);
    }
    let mut text = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut text)?;
    parse(&text)
}

pub(super) fn parse(text: &[u8]) -> Result<State, Useless> {
    let text = text.strip_prefix(MAGIC).ok_or(Useless::Foreign)?;
    let text = std::str::from_utf8(text).map_err(|_| Useless::Checksum)?;
    let (sum, body) = text.split_once('\n').ok_or(Useless::Checksum)?;
    let body = body.strip_suffix('\n').ok_or(Useless::Checksum)?;
    if sum != format!("crc32 {:08x}", checksum(body)) {
        return Err(Useless::Checksum);
    }
    let told = serde_json::from_str(body).map_err(|_| Useless::Content("the document"))?;
    state(&told)
}

fn checksum(body: &str) -> u32 {
    crc32fast::hash(body.as_bytes())
}

fn document(state: &State) -> Value {
    let millis = |until: Until| until.end().map(CacheTime::as_millis);
    let overrides = state.overrides().map(|(name, entry)| {
        json!({
            "name": name.to_string(),
            "action": word(entry.held.action),
            "subtree": entry.held.is_subtree,
            "until_ms": millis(entry.until),
        })
    });
    let disabled = state.disabled.iter();
    let disabled =
        disabled.map(|(list, until)| json!({ "list": list, "until_ms": millis(*until) }));
    json!({
        "paused": state.pause.map(|until| json!({ "until_ms": millis(until) })),
        "disabled": disabled.collect::<Vec<_>>(),
        "overrides": overrides.collect::<Vec<_>>(),
    })
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Block => "block",
        Action::Allow => "allow",
    }
}

fn state(told: &Value) -> Result<State, Useless> {
    let mut state = State::default();
    let pause = match told.get("paused") {
        None => return Err(Useless::Content("paused")),
        Some(Value::Null) => None,
        Some(Value::Object(pause)) => Some(until(pause).ok_or(Useless::Content("paused"))?),
        Some(_) => return Err(Useless::Content("paused")),
    };
    state.pause = pause;
    for one in items(told, "disabled", DISABLED_MAX)? {
        let read = || Some((one.get("list")?.as_str()?.to_owned(), until(one.as_object()?)?));
        let (list, until) = read().ok_or(Useless::Content("a list"))?;
        state.disabled.insert(list, until);
    }
    for one in items(told, "overrides", OVERRIDES_MAX)? {
        let (key, entry) = entry(one).ok_or(Useless::Content("an override"))?;
        state.overrides.insert(key, entry);
    }
    Ok(state)
}

fn items<'v>(told: &'v Value, name: &'static str, most: usize) -> Result<&'v Vec<Value>, Useless> {
    let items = told.get(name).and_then(Value::as_array);
    items.filter(|items| items.len() <= most).ok_or(Useless::Content(name))
}

fn entry(one: &Value) -> Option<(Box<[u8]>, Entry)> {
    let mut name = NameBuf::from_text(one.get("name")?.as_str()?).ok()?;
    name.make_lower();
    let action = match one.get("action")?.as_str()? {
        "block" => Action::Block,
        "allow" => Action::Allow,
        _ => return None,
    };
    let is_subtree = one.get("subtree")?.as_bool()?;
    let until = until(one.as_object()?)?;
    let held = Override { action, is_subtree };
    Some((name.as_name().as_bytes().into(), Entry { held, until }))
}

fn until(of: &Map<String, Value>) -> Option<Until> {
    match of.get("until_ms")? {
        Value::Null => Some(Until::Told),
        millis => Some(Until::At(CacheTime::from_millis(millis.as_u64()?))),
    }
}
