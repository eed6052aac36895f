//! Hosts files: an address and its names (hosts(5)).

use super::name::Folded;
use super::{Finding, Reader, Sink, address, before_comment};
use crate::policy::filter::rule::Reach;

/// What every hosts file calls the machine itself and its networks.
const OWN_NAMES: [&[u8]; 13] = [
    b"localhost",
    b"localhost.localdomain",
    b"localhost4",
    b"localhost6",
    b"local",
    b"broadcasthost",
    b"ip6-localhost",
    b"ip6-loopback",
    b"ip6-localnet",
    b"ip6-mcastprefix",
    b"ip6-allnodes",
    b"ip6-allrouters",
    b"ip6-allhosts",
];

/// Reads one line.
pub(super) fn line<S: Sink>(line: &[u8], reader: &mut Reader<'_, S>) -> Result<(), Finding> {
    let line = before_comment(line);
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let Some(first) = words.next() else { return Ok(()) };
    let own = address(first).ok_or(Finding::Address)?;
    let mut is_empty = true;
    for word in words {
        is_empty = false;
        if OWN_NAMES.contains(&word) || address(word) == Some(own) {
            reader.remark(Finding::OwnName);
            continue;
        }
        // One bad name does not spoil its neighbours.
        let read = Folded::read(word)
            .and_then(|folded| reader.emit_address(folded.name()?, Reach::Exact, own));
        if let Err(finding) = read {
            reader.remark(finding);
        }
    }
    if is_empty { Err(Finding::Incomplete) } else { Ok(()) }
}
