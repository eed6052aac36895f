//! Names of record types, as people write and read them.

use super::Rtype;

/// The types that have a name here: those that resolvers are asked for, by number.
const NAMES: [(u16, &str); 33] = [
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (13, "HINFO"),
    (15, "MX"),
    (16, "TXT"),
    (17, "RP"),
    (18, "AFSDB"),
    (28, "AAAA"),
    (29, "LOC"),
    (33, "SRV"),
    (35, "NAPTR"),
    (37, "CERT"),
    (39, "DNAME"),
    (43, "DS"),
    (44, "SSHFP"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (53, "SMIMEA"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
];

impl Rtype {
    /// The type that `text` names, in any casing; `TYPE` and a number stands for any (RFC 3597 §5).
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let is_meant = |name: &str| name.eq_ignore_ascii_case(text);
        if let Some((number, _)) = NAMES.iter().find(|(_, name)| is_meant(name)) {
            return Some(Self(*number));
        }
        let (word, number) = text.split_at_checked("TYPE".len())?;
        let is_number = number.bytes().all(|octet| octet.is_ascii_digit());
        (word.eq_ignore_ascii_case("TYPE") && is_number).then(|| number.parse().ok().map(Self))?
    }
}

/// The name of the type, or `TYPE` and its number.
impl std::fmt::Display for Rtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_what_it_writes() {
        for number in 0..=u16::MAX {
            let rtype = Rtype(number);
            assert_eq!(Rtype::from_text(&rtype.to_string()), Some(rtype));
        }
    }

    #[test]
    fn casing_is_free_and_nonsense_is_none() {
        assert_eq!(Rtype::from_text("aaaa"), Some(Rtype::AAAA));
        assert_eq!(Rtype::from_text("type65280"), Some(Rtype(65_280)));
        for text in ["", "B", "TYPE", "TYPE65536", "TYPE-1", "TYPE+1", "äTYPE1", "TYP\u{c9}1"] {
            assert_eq!(Rtype::from_text(text), None, "{text}");
        }
    }
}
