//! How a list is written, told by its first lines.

use super::{Syntax, address};

/// Lines that are looked at, comments apart.
const LINES_MAX: usize = 100;

/// Octets that are looked at: long comments come first in some lists.
const BYTES_MAX: usize = 64 << 10;

/// Tells the syntax of a list: that of the first line which only one of them has.
///
/// `[Adblock …]`, a line that begins with `||` or `@@` or ends in `^`: Adblock. `address=/`, `server=/`, `local=/`: dnsmasq.
/// `$TTL`, `$ORIGIN`, or ` SOA ` or ` CNAME ` between blanks: a response policy zone. An address and a word behind
/// it: a hosts file. Lines that begin with `#`, `!` or `;` tell nothing. When no line does, they are plain names.
#[must_use]
pub fn detect(text: &[u8]) -> Syntax {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let text = &text[..text.len().min(BYTES_MAX)];
    let lines = text.split(|&octet| octet == b'\n').map(<[u8]>::trim_ascii);
    let lines = lines.filter(|line| !matches!(line, [] | [b'#' | b'!' | b';', ..]));
    lines.take(LINES_MAX).find_map(told_by).unwrap_or(Syntax::Domains)
}

fn told_by(line: &[u8]) -> Option<Syntax> {
    let begins = |marks: &[&[u8]]| marks.iter().any(|mark| line.starts_with(mark));
    if begins(&[b"[Adblock", b"[uBlock", b"||", b"@@"]) || line.ends_with(b"^") {
        return Some(Syntax::Adblock);
    }
    if begins(&[b"address=/", b"server=/", b"local=/"]) {
        return Some(Syntax::Dnsmasq);
    }
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let is_zone = |word: &[u8]| {
        [b"SOA".as_slice(), b"CNAME"].iter().any(|mark| word.eq_ignore_ascii_case(mark))
    };
    if begins(&[b"$TTL", b"$ORIGIN"]) || words.clone().skip(1).any(is_zone) {
        return Some(Syntax::Rpz);
    }
    let has_address = words.next().is_some_and(|word| address(word).is_some());
    (has_address && words.next().is_some()).then_some(Syntax::Hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_telling_line_decides() {
        for (text, syntax) in [
            ("", Syntax::Domains),
            ("# Title\n\nads.example\n*.x.example\n", Syntax::Domains),
            ("# Title\n127.0.0.1 localhost\n", Syntax::Hosts),
            ("ads.example\r\n0.0.0.0\tads.example\r\n", Syntax::Hosts),
            ("[Adblock Plus]\n", Syntax::Adblock),
            ("! Title\nads.example\n||x.example^$important\n", Syntax::Adblock),
            ("\u{FEFF}@@||x.example^", Syntax::Adblock),
            ("#\naddress=/ads.example/\n", Syntax::Dnsmasq),
            ("; zone\n@ 3600 IN SOA . . 1 1 1 1 1\n", Syntax::Rpz),
            ("$TTL 300\n", Syntax::Rpz),
            ("ads.example CNAME .\n", Syntax::Rpz),
            ("192.0.2.1\nads.example\n", Syntax::Domains),
        ] {
            assert_eq!(detect(text.as_bytes()), syntax, "{text}");
        }
    }
}
