//! What CHAOS questions learn: the version and the name that the operator gave the node (RFC 4892 §2), or nothing.

use crate::config;
use crate::wire::answer::AnswerBuilder;
use crate::wire::encode::Full;
use crate::wire::response::Section;
use crate::wire::{AnswerBuf, Class, Flags, Name, NameBuf, Rcode, Rtype};

/// Character strings have one octet of length (RFC 1035 §3.3).
const TEXT_BYTES_MAX: usize = 255;

/// The CHAOS names that are answered.
#[derive(Clone, Debug)]
pub struct Identity {
    answers: Vec<(NameBuf, AnswerBuf)>,
}

impl Identity {
    /// Compiles the section; texts are cut at 255 bytes.
    #[must_use]
    pub fn new(section: &config::Identity) -> Self {
        let names = [
            ("version.bind.", &section.version),
            ("version.server.", &section.version),
            ("id.server.", &section.id),
            ("hostname.bind.", &section.id),
        ];
        let answers = names.into_iter().filter_map(|(name, text)| {
            let name = NameBuf::from_text(name).ok()?;
            let answer = text_answer(name.as_name(), text.as_ref()?).ok()?;
            Some((name, answer))
        });
        Self { answers: answers.collect() }
    }

    /// The answer for `qname`, if there is one and TXT is asked for.
    #[must_use]
    pub fn lookup(&self, qname: Name<'_>, qtype: Rtype) -> Option<&AnswerBuf> {
        if !matches!(qtype, Rtype::TXT | Rtype::ANY) {
            return None;
        }
        let known = self.answers.iter().find(|(name, _)| name.as_name().is_same(qname));
        known.map(|(_, answer)| answer)
    }
}

fn text_answer(name: Name<'_>, text: &str) -> Result<AnswerBuf, Full> {
    let text = text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default();
    let mut rdata = vec![u8::try_from(text.len()).map_err(|_| Full)?];
    rdata.extend(text.as_bytes());
    let mut builder = AnswerBuilder::new(name, Rtype::TXT, Class::CH, Rcode::NOERROR)?;
    builder.write(Section::Answer, name, Rtype::TXT, Class::CH, 0, &rdata)?;
    builder.set_flags(Flags::AA);
    Ok(builder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(section: &config::Identity, name: &str, qtype: Rtype) -> Option<Vec<u8>> {
        let name = NameBuf::from_text(name).unwrap();
        let identity = Identity::new(section);
        identity.lookup(name.as_name(), qtype).map(|answer| answer.body.to_vec())
    }

    #[test]
    fn only_what_is_configured_is_told() {
        let section = config::Identity { version: Some("one".into()), id: None };
        assert!(lookup(&section, "VERSION.bind", Rtype::TXT).unwrap().ends_with(b"\x04\x03one"));
        assert!(lookup(&section, "version.server", Rtype::ANY).is_some());
        assert_eq!(lookup(&section, "id.server", Rtype::TXT), None);
        assert_eq!(lookup(&section, "version.bind", Rtype::A), None);
        assert_eq!(lookup(&section, "authors.bind", Rtype::TXT), None);
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let section = config::Identity { version: None, id: Some("ä".repeat(200)) };
        let body = lookup(&section, "id.server", Rtype::TXT).unwrap();
        assert_eq!(body.len(), 12 + 1 + 254);
    }
}
