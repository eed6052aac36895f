//! A name that the operator has stand for another one, which the node then has to ask for.

use crate::wire::answer::AnswerBuilder;
use crate::wire::encode::Full;
use crate::wire::{AnswerBuf, Class, Flags, Name, NameBuf, Rcode, Rtype};

/// The way from the name asked for to the one whose data the client gets.
#[derive(Clone, Debug)]
pub struct Detour {
    /// The CNAME records on the way; the first one's owner is the question's name, whatever it is.
    pub links: AnswerBuf,
    /// Where they lead, in lower case.
    pub target: NameBuf,
}

impl Detour {
    /// One CNAME record from whatever is asked for to `target`.
    ///
    /// # Errors
    /// [`Full`]; cannot happen for a parsed name.
    pub fn to(target: Name<'_>, ttl: u32) -> Result<Self, Full> {
        let mut builder = AnswerBuilder::new(Name::ROOT, Rtype::CNAME, Class::IN, Rcode::NOERROR)?;
        builder.set_flags(Flags::AA);
        builder.write_for_question(Rtype::CNAME, Class::IN, ttl, target.as_bytes())?;
        let mut target = NameBuf::new(target);
        target.make_lower();
        Ok(Self { links: builder.finish(), target })
    }

    /// A copy for one client.
    #[must_use]
    pub fn boxed(&self) -> Box<Self> {
        Box::new(self.clone())
    }
}
