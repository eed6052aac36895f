//! From what the operator says to ready answers: aliases are followed, negative answers get their SOA, delegations become
//! referrals. Asked at the start for every name and type there is, and at work for names below a DNAME.

use super::records::Sets;
use super::special::Kind;
use super::world::{At, Contents, World, substitute};
use super::writer::Writer;
use super::zone::{Beyond, Held, Node, Referral, Zone};
use crate::policy::Detour;
use crate::wire::encode::Full;
use crate::wire::response::Section;
use crate::wire::{AnswerBuf, Name, NameBuf, Rcode, Rtype};

/// Aliases followed for one name. Unbound's default too; beyond it are loops and mistakes.
const CNAME_CHAIN_MAX: usize = 11;

/// A record on the way from the name asked for to its data.
struct Link {
    owner: Vec<u8>,
    rtype: Rtype,
    ttl: u32,
    rdata: Vec<u8>,
}

/// The aliases from a name on.
struct Chain<'a> {
    links: Vec<Link>,
    /// The name that the last one leads to, folded.
    last: Vec<u8>,
    end: End<'a>,
}

/// What is at the end of a chain.
enum End<'a> {
    /// A name of the zone and its records; none at an empty non-terminal.
    Exists(Option<&'a Sets>, &'a Contents),
    /// A name of its own and its records.
    Listed(Sets),
    /// A name that the zone lacks.
    Missing(&'a Contents),
    /// A name that the zone has delegated.
    Cut(&'a Contents, Name<'a>),
    /// A name of which nothing is known here.
    Outside,
    /// A loop, or still more aliases.
    Endless,
    /// What a DNAME makes of the name is too long for one (RFC 6672 §2.2).
    TooLong,
}

/// Makes answers.
#[derive(Clone, Copy)]
pub(super) struct Compiler<'a> {
    pub(super) world: &'a World,
}

impl<'a> Compiler<'a> {
    /// All answers of one zone.
    pub(super) fn zone(self, contents: &'a Contents) -> Result<Zone, Full> {
        let kind = contents.kind;
        let mut zone = Zone::empty(
            negative(contents, Rcode::NOERROR)?,
            negative(contents, kind.missing())?,
            kind.has_parent(),
        );
        for name in contents.names.iter().filter(|_| kind != Kind::Denied) {
            let owner = Name::parse(name).map_err(|_| Full)?;
            let node = match contents.sets(owner) {
                Some(sets) if contents.is_cut(owner) => delegated(owner, sets, contents)?,
                Some(sets) => self.node(owner, sets, Some(contents))?,
                None => Node::default(),
            };
            zone.insert(owner, node);
        }
        Ok(zone)
    }

    /// The answers for one owner.
    pub(super) fn node(
        self,
        owner: Name<'_>,
        sets: &Sets,
        zone: Option<&Contents>,
    ) -> Result<Node, Full> {
        let mut node = Node { is_dname: sets.contains_key(&Rtype::DNAME), ..Node::default() };
        for (&rtype, set) in sets {
            let mut writer = Writer::new(owner, rtype, Rcode::NOERROR)?;
            writer.add(Section::Answer, owner, rtype, set)?;
            writer.add_additional(rtype, set, zone)?;
            node.answers.push((rtype, Held::Answer(writer.finish())));
        }
        if sets.contains_key(&Rtype::CNAME) {
            let chain = self.follow(owner);
            for rtype in chain.types() {
                if !sets.contains_key(&rtype) {
                    node.answers.push((rtype, chain.held(owner, Some(rtype))?));
                }
            }
            node.others = Some(chain.held(owner, None)?);
        }
        Ok(node)
    }

    /// The answer to `qtype` at the folded `qname`, which lies below a DNAME.
    pub(super) fn redirected(self, qname: Name<'_>, qtype: Rtype) -> Result<Held, Full> {
        let mut chain = self.follow(qname);
        if qtype == Rtype::CNAME {
            // The synthesised CNAME is what was asked for (RFC 6672 §3.2).
            let first = chain.links.iter().position(|link| link.rtype == Rtype::CNAME);
            if let Some(first) = first {
                chain.links.truncate(first + 1);
                chain.end = End::Endless;
            }
        }
        let has_data = chain.types().any(|rtype| rtype == qtype);
        chain.held(qname, has_data.then_some(qtype))
    }

    /// Follows the aliases from the folded `owner` on, through wildcards (RFC 4592 §3.3), DNAMEs and other zones, too.
    fn follow(self, owner: Name<'_>) -> Chain<'a> {
        let last = owner.as_bytes().to_vec();
        let mut chain = Chain { links: Vec::new(), last, end: End::Endless };
        for _ in 0..=CNAME_CHAIN_MAX {
            let Ok(name) = Name::parse(&chain.last) else { return chain };
            let alias = |sets: &Sets| {
                let set = sets.get(&Rtype::CNAME)?;
                Some((set.ttl, set.rdata.first()?.to_ascii_lowercase()))
            };
            let (ttl, target) = match self.world.at(name) {
                At::Exists(sets, zone) => match sets.and_then(alias) {
                    Some(alias) => alias,
                    None => return Chain { end: End::Exists(sets, zone), ..chain },
                },
                At::Listed(sets) => match alias(&sets) {
                    Some(alias) => alias,
                    None => return Chain { end: End::Listed(sets.into_owned()), ..chain },
                },
                At::Missing(zone) => return Chain { end: End::Missing(zone), ..chain },
                At::Cut(zone, cut) => return Chain { end: End::Cut(zone, cut), ..chain },
                At::Outside => return Chain { end: End::Outside, ..chain },
                At::Dname(above, set) => {
                    let Some(target) = set.rdata.first() else { return chain };
                    let substituted = substitute(name, above, &target.to_ascii_lowercase());
                    chain.links.push(Link {
                        owner: above.as_bytes().to_vec(),
                        rtype: Rtype::DNAME,
                        ttl: set.ttl,
                        rdata: target.clone(),
                    });
                    match substituted {
                        Some(substituted) => (set.ttl, substituted),
                        None => return Chain { end: End::TooLong, ..chain },
                    }
                }
            };
            if chain.aliases() == CNAME_CHAIN_MAX {
                return chain;
            }
            let owner = std::mem::replace(&mut chain.last, target.clone());
            chain.links.push(Link { owner, rtype: Rtype::CNAME, ttl, rdata: target });
            if chain.links.iter().any(|known| known.owner == chain.last) {
                return chain;
            }
        }
        chain
    }
}

impl Chain<'_> {
    fn aliases(&self) -> usize {
        self.links.iter().filter(|link| link.rtype == Rtype::CNAME).count()
    }

    /// The types of which there is data at the end.
    fn types(&self) -> impl Iterator<Item = Rtype> {
        let (sets, ds) = match &self.end {
            End::Exists(sets, _) => (*sets, None),
            End::Listed(sets) => (Some(sets), None),
            // The parent's side of a cut.
            End::Cut(_, cut) if cut.as_bytes() == self.last => (None, Some(Rtype::DS)),
            End::Missing(_) | End::Cut(..) | End::Outside | End::Endless | End::TooLong => {
                (None, None)
            }
        };
        sets.into_iter().flat_map(|sets| sets.keys().copied()).chain(ds)
    }

    /// An answer at `owner` that begins with the links.
    fn linked<'n>(&self, owner: Name<'n>, rtype: Rtype, rcode: Rcode) -> Result<Writer<'n>, Full> {
        let mut writer = Writer::new(owner, rtype, rcode)?;
        for Link { owner, rtype, ttl, rdata } in &self.links {
            let owner = Name::parse(owner).map_err(|_| Full)?;
            writer.write(Section::Answer, owner, *rtype, *ttl, rdata)?;
        }
        Ok(writer)
    }

    /// The answer for an alias at `owner`: the links, then the data of type `data` at their end. Without data the end
    /// decides, as if it had been asked for (RFC 6604 §3, RFC 2308 §2).
    fn held(&self, owner: Name<'_>, data: Option<Rtype>) -> Result<Held, Full> {
        let rcode = match &self.end {
            End::Missing(zone) => zone.kind.missing(),
            End::TooLong => Rcode::YXDOMAIN,
            _ => Rcode::NOERROR,
        };
        let mut writer = self.linked(owner, data.unwrap_or(Rtype::CNAME), rcode)?;
        let last = Name::parse(&self.last).map_err(|_| Full)?;
        let (sets, zone) = match &self.end {
            End::Exists(sets, zone) => (*sets, Some(*zone)),
            End::Listed(sets) => (Some(sets), None),
            End::Missing(zone) => (None, Some(*zone)),
            End::Cut(zone, cut) if data == Some(Rtype::DS) => (zone.sets(*cut), Some(*zone)),
            End::Cut(zone, cut) => {
                let detour = Detour { links: writer.finish(), target: NameBuf::new(last) };
                let alone = Some(referral(zone, *cut, || self.linked(owner, Rtype::CNAME, rcode))?);
                return Ok(Held::Follow(Box::new(Beyond { detour, alone })));
            }
            End::Outside => {
                let detour = Detour { links: writer.finish(), target: NameBuf::new(last) };
                return Ok(Held::Follow(Box::new(Beyond { detour, alone: None })));
            }
            End::Endless | End::TooLong => return Ok(Held::Answer(writer.finish())),
        };
        match data.and_then(|rtype| Some((rtype, sets?.get(&rtype)?))) {
            Some((rtype, set)) => {
                writer.add(Section::Answer, last, rtype, set)?;
                writer.add_additional(rtype, set, zone)?;
            }
            None => writer.add_soa(zone)?,
        }
        Ok(Held::Answer(writer.finish()))
    }
}

/// What is said at a zone cut and below it.
fn delegated(cut: Name<'_>, sets: &Sets, zone: &Contents) -> Result<Node, Full> {
    let referral = referral(zone, cut, || Writer::referral(cut))?;
    // DS stands on the parent's side (RFC 4035 §3.1.4.1).
    let mut ds = Writer::new(cut, Rtype::DS, Rcode::NOERROR)?;
    match sets.get(&Rtype::DS) {
        Some(set) => ds.add(Section::Answer, cut, Rtype::DS, set)?,
        None => ds.add_soa(Some(zone))?,
    }
    let answers = vec![(Rtype::DS, Held::Answer(ds.finish()))];
    Ok(Node { answers, referral: Some(referral), ..Node::default() })
}

/// What `begin` has begun, with the delegation at `cut` behind it.
fn referral<'n>(
    zone: &Contents,
    cut: Name<'_>,
    begin: impl Fn() -> Result<Writer<'n>, Full>,
) -> Result<Referral, Full> {
    let written = |with_ds| {
        let mut writer = begin()?;
        writer.add_referral(zone, cut, with_ds)?;
        Ok(writer.finish())
    };
    let is_signed = zone.sets(cut).is_some_and(|sets| sets.contains_key(&Rtype::DS));
    let signed = if is_signed { Some(written(true)?) } else { None };
    Ok(Referral { plain: written(false)?, signed })
}

/// NXDOMAIN or NODATA with the zone's SOA (RFC 2308 §2), fit for every name of the zone.
fn negative(zone: &Contents, rcode: Rcode) -> Result<AnswerBuf, Full> {
    let mut writer = Writer::new(zone.apex.as_name(), Rtype::SOA, rcode)?;
    writer.add_soa(Some(zone))?;
    Ok(writer.finish())
}
