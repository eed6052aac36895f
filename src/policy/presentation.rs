//! A look at zone-file text before the zone-file reader gets it: what it must not be given.
//!
//! The reader (crate `domain`, 0.12.3) panics over a TXT record when its text ends within parentheses, because it then
//! goes on to make character strings out of nothing. So each entry is given to it alone, and only when nothing
//! in it is left open as the reader counts: for it a quoted text goes on over line ends, and an escape is one symbol.

/// What is still open at the end of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Open {
    /// A quoted text.
    Quote,
    /// A parenthesis.
    Parenthesis,
    /// An escape.
    Escape,
}

impl Open {
    /// For the operator.
    pub(super) const fn problem(self) -> &'static str {
        match self {
            Self::Quote => "a quoted text is not closed in its line",
            Self::Parenthesis => "a parenthesis is not closed",
            Self::Escape => "a backslash escapes nothing",
        }
    }
}

/// What is left open at the end of `entry`, a line or several within parentheses (RFC 1035 §5.1).
pub(super) fn left_open(entry: &[u8]) -> Option<Open> {
    let (mut depth, mut is_quoted, mut is_comment) = (0_usize, false, false);
    let mut octets = entry.iter();
    while let Some(octet) = octets.next() {
        match octet {
            b'\n' => is_comment = false,
            _ if is_comment => {}
            b'\\' => match octets.next() {
                // An escaped line end would hide the end of the entry.
                None | Some(b'\n') => return Some(Open::Escape),
                Some(_) => {}
            },
            b'"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b';' => is_comment = true,
            b'(' => depth += 1,
            // One too many is an error that the reader knows.
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    match (is_quoted, depth) {
        (true, _) => Some(Open::Quote),
        (false, 0) => None,
        (false, _) => Some(Open::Parenthesis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_entries_leave_nothing_open() {
        for entry in [
            "",
            "www A 192.0.2.1\n",
            "@ SOA a b ( 1 ; (\n 2 3 4 5 )\n",
            "www TXT \"(\" \\( \\\" ; \"(\n",
            "www TXT ( \"a\nb\" )\n",
        ] {
            assert_eq!(left_open(entry.as_bytes()), None, "{entry:?}");
        }
    }

    #[test]
    fn entries_that_go_on_are_found() {
        for (entry, open) in [
            ("www TXT ( \"a\"\n", Open::Parenthesis),
            ("www TXT (\n", Open::Parenthesis),
            ("www TXT ( a ; )\n", Open::Parenthesis),
            ("www TXT ( a \\)\n", Open::Parenthesis),
            ("www TXT \"a\n", Open::Quote),
            ("www TXT ( \"a )\n", Open::Quote),
            ("www TXT \"a\\\"\n", Open::Quote),
            ("www TXT a\\\n", Open::Escape),
            ("www TXT a\\", Open::Escape),
        ] {
            assert_eq!(left_open(entry.as_bytes()), Some(open), "{entry:?}");
        }
    }
}
