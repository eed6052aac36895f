//! A list from anywhere: read without a panic, and what it names is found in the image that is made of it.
//!
//! Input: one octet that chooses the syntax (or has it detected), then the list.

use heimdall_uring::policy::filter::syntax::{self, Syntax};
use heimdall_uring::policy::filter::{
    Asker, Compiler, Image, Kind, Lists, Owner, Reach, Rule, Trigger,
};
use heimdall_uring::wire::{NameBuf, Rtype};

/// Runs one input.
pub(crate) fn run(input: &[u8]) {
    rules(input);
}

/// Runs one input; says how many rules it has.
pub(crate) fn rules(input: &[u8]) -> u64 {
    let Some((&choice, text)) = input.split_first() else { return 0 };
    let syntax = match choice {
        b'h' => Syntax::Hosts,
        b'd' => Syntax::Domains,
        b'a' => Syntax::Adblock,
        b'm' => Syntax::Dnsmasq,
        b'r' => Syntax::Rpz,
        _ => syntax::detect(text),
    };
    let mut compiler = Compiler::new([5; 16]);
    // Exact or not, the owner of such a rule is covered by it or by one that outranks it.
    let mut owners = Vec::new();
    let mut cancels = false;
    let report = syntax::read(text, syntax, &mut |rule: &Rule<'_>| {
        let is_plain = rule.types.is_all()
            && rule.clients.is_all()
            && rule.except.is_empty()
            && rule.trigger == Trigger::Qname
            && !rule.is_rewrite;
        cancels |= rule.cancels;
        match rule.owner {
            Owner::Name(name) if is_plain && rule.reach != Reach::Below => {
                assert!(!name.as_bytes().iter().any(u8::is_ascii_uppercase), "it is folded");
                owners.push(NameBuf::new(name));
            }
            Owner::Name(_) | Owner::Addresses(_) => {}
        }
        compiler.add(1, Kind::Block, rule).is_ok()
    });
    for remarks in [&report.bad, &report.skipped] {
        assert!(remarks.first.len() as u64 <= remarks.count);
        let lines = text.split(|&octet| octet == b'\n').count();
        assert!(remarks.first.iter().all(|remark| (1..=lines).contains(&remark.line)));
    }
    let image = compiler.finish(0).expect("a short list fits");
    let image = Image::open(image).expect("we read what we write");
    let address = [192, 0, 2, 1].into();
    let asker = Asker { lists: &Lists::ALL, qtype: Rtype::A, address, name: None };
    // What is taken back is not found.
    for owner in owners.iter().filter(|_| !cancels) {
        let decision = image.matcher().decide(owner.as_name().as_bytes(), &asker);
        let decision = decision.expect("what is listed is found");
        assert_eq!(decision.list, 1);
        assert!(decision.records().count() as u64 <= report.rules);
    }
    report.rules
}
