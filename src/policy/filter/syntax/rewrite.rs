//! The value of `$dnsrewrite`: an answer in short (`192.0.2.1`, `other.example`, `NXDOMAIN`), or in full
//! (`NOERROR;A;192.0.2.1`).

use std::net::IpAddr;

use super::name::Folded;
use super::{Finding, address, text};
use crate::policy::filter::rule::Verb;
use crate::wire::Rtype;

/// What a rewrite does; the data of its record, if it has one, lie in what `read` was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Rewrite {
    pub(super) verb: Verb,
    pub(super) rtype: Option<Rtype>,
}

const PTR: Rtype = Rtype(12);
const SRV: Rtype = Rtype(33);

const fn to(rtype: Rtype) -> Rewrite {
    Rewrite { verb: Verb::Local, rtype: Some(rtype) }
}

/// Reads a value, its record's data into `rdata`, which is empty.
pub(super) fn read(value: &[u8], rdata: &mut Vec<u8>) -> Result<Rewrite, Finding> {
    let mut parts = value.splitn(3, |&octet| octet == b';');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(short), None, None) => in_short(short, rdata),
        (Some(code), Some(rtype), Some(data)) => in_full(code, rtype, data, rdata),
        _ => Err(Finding::Value),
    }
}

fn in_short(value: &[u8], rdata: &mut Vec<u8>) -> Result<Rewrite, Finding> {
    if !value.is_empty() && value.iter().all(u8::is_ascii_uppercase) {
        return by_code(value);
    }
    if let Some(address) = address(value) {
        return Ok(write_address(address, rdata));
    }
    write_name(value, rdata)?;
    Ok(to(Rtype::CNAME))
}

fn by_code(code: &[u8]) -> Result<Rewrite, Finding> {
    let verb = match code {
        b"NOERROR" => Verb::Nodata,
        b"NXDOMAIN" => Verb::Nxdomain,
        b"REFUSED" | b"SERVFAIL" => return Err(Finding::NotOffered),
        _ => return Err(Finding::Value),
    };
    Ok(Rewrite { verb, rtype: None })
}

fn in_full(
    code: &[u8],
    rtype: &[u8],
    data: &[u8],
    rdata: &mut Vec<u8>,
) -> Result<Rewrite, Finding> {
    if code != b"NOERROR" || (rtype.is_empty() && data.is_empty()) {
        return by_code(code);
    }
    let mut words = data.split(|&octet| octet == b' ').filter(|word| !word.is_empty());
    let mut number = |rdata: &mut Vec<u8>| {
        let number: u16 = words.next().and_then(text).and_then(|word| word.parse().ok())?;
        rdata.extend(number.to_be_bytes());
        Some(())
    };
    let rtype = match rtype {
        b"A" | b"AAAA" => {
            let rewrite = write_address(address(data).ok_or(Finding::Address)?, rdata);
            let is_meant = rewrite == to(if rtype == b"A" { Rtype::A } else { Rtype::AAAA });
            return if is_meant { Ok(rewrite) } else { Err(Finding::Address) };
        }
        b"CNAME" | b"PTR" => {
            write_name(data, rdata)?;
            if rtype == b"PTR" { PTR } else { Rtype::CNAME }
        }
        b"TXT" => {
            // One string (RFC 1035 §3.3).
            rdata.push(u8::try_from(data.len()).map_err(|_| Finding::Value)?);
            rdata.extend(data);
            Rtype::TXT
        }
        b"MX" => {
            number(rdata).ok_or(Finding::Value)?;
            write_name(words.next().ok_or(Finding::Value)?, rdata)?;
            Rtype::MX
        }
        b"SRV" => {
            for _ in 0..3 {
                number(rdata).ok_or(Finding::Value)?;
            }
            write_name(words.next().ok_or(Finding::Value)?, rdata)?;
            SRV
        }
        b"HTTPS" | b"SVCB" => return Err(Finding::NotOffered),
        _ => return Err(Finding::Value),
    };
    Ok(to(rtype))
}

fn write_address(address: IpAddr, rdata: &mut Vec<u8>) -> Rewrite {
    match address {
        IpAddr::V4(address) => {
            rdata.extend(address.octets());
            to(Rtype::A)
        }
        IpAddr::V6(address) => {
            rdata.extend(address.octets());
            to(Rtype::AAAA)
        }
    }
}

fn write_name(word: &[u8], rdata: &mut Vec<u8>) -> Result<(), Finding> {
    rdata.extend(Folded::read(word)?.name()?.as_bytes());
    Ok(())
}
