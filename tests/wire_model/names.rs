//! Names: presentation form, and compression of what the encoder writes.

use std::str::FromStr;

use domain::base::name::Name as DomainName;
use heimdall_uring::wire::{Encoder, Flags, Header, Name, NameBuf, NameError};
use proptest::prelude::*;

use super::budget;
use super::messages::name;

const HEADER: Header = Header { id: 0, flags: Flags(0), counts: [0; 4] };

fn domain_name(text: &str) -> Option<Vec<u8>> {
    DomainName::<Vec<u8>>::from_str(text).ok().map(DomainName::into_octets)
}

fn our_name(text: &str) -> Result<Vec<u8>, NameError> {
    NameBuf::from_text(text).map(|name| name.as_name().as_bytes().to_vec())
}

/// Text that we take and `domain` does not, or the other way round, and why.
fn explains(text: &str, ours: &Result<Vec<u8>, NameError>, theirs: Option<&Vec<u8>>) -> bool {
    match (ours, theirs) {
        // The empty text is the root for us, nothing for `domain`.
        (Ok(root), None) if text.is_empty() => root == &[0],
        // We take octets that no zone file would hold unescaped: blanks, controls, UTF-8. Names come from config values.
        (Ok(_), None) => text.chars().any(|char| !char.is_ascii_graphic()),
        (Ok(ours), Some(theirs)) => ours == theirs,
        (Err(_), None) => true,
        (Err(_), Some(_)) => false,
    }
}

#[test]
fn texts_that_once_disagreed() {
    for text in ["", ".", "..", "a b", "ä.example", "\\", "\\1", "\\256", "\\.", "a\\", "\"", "a\t"]
    {
        let (ours, theirs) = (our_name(text), domain_name(text));
        assert!(explains(text, &ours, theirs.as_ref()), "{text:?}: {ours:?} {theirs:?}");
    }
}

proptest! {
    #![proptest_config(budget(512))]

    #[test]
    fn display_is_read_back_by_domain_and_by_us(wire in name()) {
        prop_assume!(wire.len() <= 255);
        let text = Name::parse(&wire).unwrap().to_string();
        prop_assert_eq!(domain_name(&text), Some(wire.clone()));
        prop_assert_eq!(our_name(&text), Ok(wire.clone()));
        let theirs = DomainName::from_octets(wire.clone()).unwrap().fmt_with_dot().to_string();
        prop_assert_eq!(our_name(&theirs), Ok(wire));
    }

    #[test]
    fn any_text_means_the_same(text in r#"([a-c]|\\[0-9]{3}|\\[.\\a"]|\.|\\|[0-9]| |ä){0,12}"#) {
        let (ours, theirs) = (our_name(&text), domain_name(&text));
        prop_assert!(explains(&text, &ours, theirs.as_ref()), "{:?} {:?}", ours, theirs);
    }

    #[test]
    fn compressed_names_expand_to_themselves(
        names in proptest::collection::vec(name(), 1..120),
        gap in prop_oneof![3 => Just(0usize), 1 => 0..0x4100usize],
    ) {
        let mut encoder = Encoder::new(HEADER, 65_535);
        encoder.bytes(&vec![0xC0; gap]).unwrap();
        let mut starts = Vec::new();
        for wire in &names {
            starts.push(encoder.len());
            encoder.name(Name::parse(wire).unwrap()).unwrap();
        }
        starts.push(encoder.len());
        let message = encoder.into_message();
        for (wire, start) in names.iter().zip(starts.windows(2)) {
            let (expanded, end) = NameBuf::expand(&message, start[0]).unwrap();
            prop_assert!(expanded.as_name().is_same(Name::parse(wire).unwrap()));
            prop_assert_eq!(end, start[1]);
            prop_assert!(end - start[0] <= wire.len().max(2), "never longer than plain");
            let mut parser = domain::dep::octseq::Parser::from_ref(&message[..]);
            parser.advance(start[0]).unwrap();
            let theirs = domain::base::name::ParsedName::parse_ref(&mut parser).unwrap();
            prop_assert_eq!(theirs, DomainName::from_octets(&wire[..]).unwrap());
        }
    }
}
