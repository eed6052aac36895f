//! Domain names in requests and replies. A reply has every name in one form, by which it can be compared: in lower case and
//! without the dot at its end; the root is its dot.

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
}
