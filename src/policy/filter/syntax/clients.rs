//! Selectors of clients and of types, as modifiers of Adblock rules have them: parts between bars, `~` before what is
//! excepted.

use domain::base::iana;
use ipnet::IpNet;

use super::{Finding, address};
use crate::policy::filter::rule::{Client, ClientSet, TypeSet};
use crate::wire::Rtype;

/// Parts of one selector. No list has so many.
const PARTS_MAX: usize = 100;

/// Longest name of a client.
const NAME_BYTES_MAX: usize = 128;

/// The parts of `value`, and whether each is excepted.
fn parts(value: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    value.split(|&octet| octet == b'|').map(|part| {
        let part = part.trim_ascii();
        part.strip_prefix(b"~").map_or((false, part), |part| (true, part))
    })
}

/// Reads `A|AAAA` or `~CNAME`.
pub(super) fn read_types(value: &[u8], types: &mut TypeSet) -> Result<(), Finding> {
    for (is_excepted, part) in parts(value) {
        let rtype = iana::Rtype::from_bytes(part).ok_or(Finding::Value)?;
        let side = if is_excepted { &mut types.except } else { &mut types.only };
        side.push(Rtype(rtype.to_int()));
        if side.len() > PARTS_MAX {
            return Err(Finding::Value);
        }
    }
    Ok(())
}

/// Reads `192.168.0.0/24|~'Frank\'s laptop'`.
pub(super) fn read_clients(value: &[u8], clients: &mut ClientSet) -> Result<(), Finding> {
    for (is_excepted, part) in parts(value) {
        let client = read_client(part).ok_or(Finding::Value)?;
        let side = if is_excepted { &mut clients.except } else { &mut clients.only };
        side.push(client);
        if side.len() > PARTS_MAX {
            return Err(Finding::Value);
        }
    }
    Ok(())
}

fn read_client(part: &[u8]) -> Option<Client> {
    if let Some(address) = address(part) {
        return Some(Client::At(address.to_canonical().into()));
    }
    let text = std::str::from_utf8(part).ok()?;
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(Client::At(net.trunc()));
    }
    let bare = ['\'', '"'].iter().find_map(|&mark| text.strip_prefix(mark)?.strip_suffix(mark));
    let name = bare.unwrap_or(text).replace('\\', "");
    (!name.is_empty() && name.len() <= NAME_BYTES_MAX).then_some(Client::Named(name))
}
