//! Domain names in requests and replies. A reply has every name in one form, by which it can be compared: in lower case and
//! without the dot at its end; the root is its dot.

use std::net::IpAddr;

use super::parameters::Parameters;
use super::reply::Refusal;
use crate::wire::{NameBuf, NameError};

/// The form in which replies have the name that is `text` in presentation form, with the dot at its end.
pub(super) fn bare(text: &str) -> String {
    let bare = text.strip_suffix('.').filter(|bare| !bare.is_empty());
    bare.unwrap_or(text).to_ascii_lowercase()
}

/// The names that a request is about, under `name` or `names`.
///
/// # Errors
/// As of [`name`].
pub(super) fn all(parameters: &Parameters) -> Result<Vec<NameBuf>, Refusal> {
    parameters.text("name").into_iter().chain(parameters.texts("names")).map(name).collect()
}

/// The same, for names that are to be blocked or allowed: what would match nothing is no such name, even if it could be one.
///
/// # Errors
/// As of [`name`], and for patterns, URLs, addresses and rules of lists.
pub(super) fn to_override(parameters: &Parameters) -> Result<Vec<NameBuf>, Refusal> {
    let texts = || parameters.text("name").into_iter().chain(parameters.texts("names"));
    if let Some((text, meant)) = texts().find_map(|text| Some((text, meant_otherwise(text)?))) {
        return Err(Refusal::bad(format!(
            "{text:?} is {meant}, and would match nothing: expected a name such as ads.example, with \"subtree\": true \
             (ctl: --subtree; dashboard: \"and below\") also for all names below it; what belongs to the name itself stands \
             behind a backslash"
        )));
    }
    all(parameters)
}

/// What `text` means instead of a name, as far as can be seen.
fn meant_otherwise(text: &str) -> Option<&'static str> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let bare = bracketed.unwrap_or(text);
    if bare.strip_suffix('.').unwrap_or(bare).parse::<IpAddr>().is_ok() {
        return Some("an IP address");
    }
    if text.len() > 1 && text.starts_with('.') {
        return Some("a pattern");
    }
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        match octet {
            b'\\' => _ = rest.next(),
            b'*' => return Some("a pattern"),
            b'|' | b'^' => return Some("a rule of a list"),
            b'/' => return Some("a URL, a path or a network"),
            b':' if text.contains("://") => return Some("a URL"),
            b':' => return Some("a name with a port, or a URL"),
            _ => {}
        }
    }
    None
}

/// The name that `text` means.
///
/// # Errors
/// The refusal; also for nothing, which would be the root, and for letters beyond ASCII, which would be taken as octets that
/// nobody asks for.
pub(super) fn name(text: &str) -> Result<NameBuf, Refusal> {
    if text.is_empty() {
        return Err(Refusal::bad("a name is empty: the root is written as its dot"));
    }
    if !text.bytes().all(|octet| octet.is_ascii_graphic()) {
        let advice =
            "no domain name: other letters than ASCII are written as xn--…, other octets as \\ddd";
        return Err(Refusal::bad(format!("{text:?} is {advice}")));
    }
    NameBuf::from_text(text)
        .map_err(|error| Refusal::bad(format!("{text:?} is no domain name: {}", flaw_of(error))))
}

/// What is wrong with a name that was written as text.
const fn flaw_of(error: NameError) -> &'static str {
    match error {
        NameError::TooLong => {
            "a label has more than 63 octets, or the name more than 255 with their lengths"
        }
        NameError::LabelType | NameError::Truncated | NameError::Pointer => {
            "a label is empty, or a backslash stands before neither a character nor three digits up to 255"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_in_one_form() {
        for (text, told) in
            [("WWW.Example.", "www.example"), (".", "."), ("a\\..", "a\\."), ("\\200A.", "\\200a")]
        {
            assert_eq!(bare(text), told);
            let name = name(told).unwrap();
            assert_eq!(bare(&name.as_name().to_string()), told, "it may be sent back");
        }
    }

    #[test]
    fn what_would_match_nothing_is_told_from_names() {
        for (text, meant) in [
            ("*.ads.example", "a pattern"),
            ("ads.*", "a pattern"),
            (".ads.example", "a pattern"),
            ("https://ads.example/x", "a URL"),
            ("ads.example/x", "a URL, a path or a network"),
            ("192.0.2.0/24", "a URL, a path or a network"),
            ("ads.example:443", "a name with a port, or a URL"),
            ("||ads.example^", "a rule of a list"),
            ("192.0.2.1", "an IP address"),
            ("192.0.2.1.", "an IP address"),
            ("2001:db8::1", "an IP address"),
            ("[2001:db8::1]", "an IP address"),
        ] {
            assert_eq!(meant_otherwise(text), Some(meant), "{text}");
        }
        for text in [
            ".",
            "example",
            "_dmarc.Example.",
            "1.2.0.192.in-addr.arpa",
            "0\\/25.2.0.192.in-addr.arpa",
            "\\*.example",
            "a\\:b.example",
            "1.2.3",
        ] {
            assert_eq!(meant_otherwise(text), None, "{text}");
        }
    }
}
