//! Where the entries of a zone file end: a line each, or several within parentheses (RFC 1035 §5.1).

/// Octets of an entry in several lines. One with a parenthesis that is never closed must not swallow the list.
pub(super) const ENTRY_BYTES_MAX: usize = 64 << 10;

/// The entries of a text, in their order.
pub(super) struct Entries<'a> {
    rest: &'a [u8],
    /// So many octets at the front of the rest were looked through in vain for the end of an entry in several lines. They are
    /// taken line by line: to look again from each of these lines would take time with the square of their number.
    lines_apart: usize,
    #[cfg(test)]
    octets_read: usize,
}

impl<'a> Entries<'a> {
    pub(super) const fn of(text: &'a [u8]) -> Self {
        Self {
            rest: text,
            lines_apart: 0,
            #[cfg(test)]
            octets_read: 0,
        }
    }

    /// The octets of the entry at the front.
    fn entry_len(&mut self) -> usize {
        let is_apart = self.lines_apart > 0;
        let (mut depth, mut is_quoted, mut is_comment, mut is_escaped) =
            (0_usize, false, false, false);
        let mut first_line = None;
        for (len, octet) in (1..).zip(self.rest) {
            #[cfg(test)]
            {
                self.octets_read += 1;
            }
            match octet {
                b'\n' => {
                    if depth == 0 || is_apart {
                        return len;
                    }
                    let first = *first_line.get_or_insert(len);
                    if len > ENTRY_BYTES_MAX {
                        // Taken for lines of their own; the first one, at least, is bad.
                        self.lines_apart = len;
                        return first;
                    }
                    (is_quoted, is_comment, is_escaped) = (false, false, false);
                }
                _ if is_comment => {}
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => is_quoted = !is_quoted,
                _ if is_quoted => {}
                b';' => is_comment = true,
                b'(' => depth += 1,
                b')' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        // The end of the text, perhaps within parentheses.
        let first_line = first_line.filter(|_| depth > 0);
        if first_line.is_some() {
            self.lines_apart = self.rest.len();
        }
        first_line.unwrap_or(self.rest.len())
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let (entry, rest) = self.rest.split_at(self.entry_len());
        self.rest = rest;
        self.lines_apart = self.lines_apart.saturating_sub(entry.len());
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_end_with_their_line_or_their_parentheses() {
        let text = b"a ( 1 ; )\n 2 )\nb \"(\"\nc \\(\n\nd ( 1\ne\nf";
        let entries: Vec<&[u8]> = Entries::of(text).collect();
        let expected: [&[u8]; 7] =
            [b"a ( 1 ; )\n 2 )\n", b"b \"(\"\n", b"c \\(\n", b"\n", b"d ( 1\n", b"e\n", b"f"];
        assert_eq!(entries, expected);
    }

    #[test]
    fn entries_after_one_that_is_too_long_are_found_again() {
        let text = [&b"a (\n"[..], &b"x\n".repeat(ENTRY_BYTES_MAX), b"b (\n 1 )\nc\n"].concat();
        let last: Vec<&[u8]> = Entries::of(&text).skip(ENTRY_BYTES_MAX + 1).collect();
        assert_eq!(last, [&b"b (\n 1 )\n"[..], b"c\n"]);
    }

    #[test]
    fn parentheses_that_are_never_closed_cost_no_more_than_their_octets() {
        for (line, end) in [("(\n", ""), ("( a\n(\n", ""), ("(\n", ")"), ("( )\n (\n", "((")] {
            let text = format!("{}{end}", line.repeat(250_000));
            let mut entries = Entries::of(text.as_bytes());
            let octets: usize = entries.by_ref().map(<[u8]>::len).sum();
            assert_eq!(octets, text.len());
            // Once in vain and once as lines, and the longest entry that there may be.
            let most = 2 * text.len() + ENTRY_BYTES_MAX;
            assert!(entries.octets_read <= most, "{line:?}: {}", entries.octets_read);
        }
    }
}
