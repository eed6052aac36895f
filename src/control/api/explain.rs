//! Why a question gets the answer that it gets: what would become of it now, and what became of the last ones.

use std::net::{IpAddr, Ipv4Addr};

use hyper::StatusCode;
use serde_json::{Value, json};

use super::cache::{ask, rtype};
use super::names::{bare, name};
use super::parameters::Parameters;
use super::reply::{Refusal, Reply, json};
use super::routes::DECISIONS_DEFAULT;
use super::{Owner, Shared};
use crate::control::desk::{Decided, Hypothetical, Request, Wanted};
use crate::observe::{Decision, Transport};
use crate::serve::{Client, Explained};
use crate::wire::{CLASSIC_UDP_BYTES, Class, Encoder, Flags, Header, Name, Rcode, Rtype};

/// Decisions that an explanation ends with.
const SHOWN_MAX: usize = 10;

/// An OPT record for replies of 1232 octets: clients without one are told less.
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xD0, 0, 0, 0, 0, 0, 0];

/// What would become of a question on each core.
pub(super) async fn explain(parameters: &Parameters, shared: &Shared) -> Result<Reply, Refusal> {
    let qname = name(parameters.text("name").unwrap_or_default())?;
    let qtype = rtype(parameters)?.unwrap_or(Rtype::A);
    let asking = client(parameters);
    let address = asking.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let transport = parameters.text("transport").unwrap_or("udp");
    let (number, listener) = listener(parameters, &shared.node.about().listen)?;
    let client = Client {
        address,
        port: 0,
        listener: number,
        transport: if transport == "tcp" { Transport::Tcp } else { Transport::Udp },
    };
    let question = Hypothetical { message: message(qname.as_name(), qtype)?, client };
    // It is closed never, so there is always a turn.
    let turn = shared.explaining.acquire().await;
    let mut cores = Vec::new();
    for (core, desk) in shared.node.desks().iter().enumerate() {
        let question = Box::new(question.clone());
        let explained = ask(core, desk, |back| Request::Trace(question, back)).await?;
        let explained = explained.ok_or_else(|| Refusal::bad("that is no question"))?;
        cores.push(describe(core, &explained));
    }
    drop(turn);
    let wanted =
        Wanted { name: Some(qname.clone()), client: asking, limit: SHOWN_MAX, ..Wanted::default() };
    let (owner, is_spread) = Owner::told(shared.node.owner(&qname));
    Ok(json(&json!({
        "name": bare(&qname.as_name().to_string()),
        "type": qtype.to_string(),
        "client": address.to_string(),
        "transport": transport,
        "listener": listener,
        "owner": owner,
        "spread": is_spread,
        "cores": cores,
        "decisions": recall(&wanted, shared).await?,
    })))
}

/// The last decisions of all cores.
pub(super) async fn decisions(parameters: &Parameters, shared: &Shared) -> Result<Reply, Refusal> {
    let limit = parameters.count("limit").unwrap_or(DECISIONS_DEFAULT);
    let wanted = Wanted {
        name: parameters.text("name").map(name).transpose()?,
        under: parameters.text("under").map(name).transpose()?,
        client: client(parameters),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    };
    Ok(json(&json!({ "decisions": recall(&wanted, shared).await? })))
}

fn client(parameters: &Parameters) -> Option<IpAddr> {
    let address: IpAddr = parameters.text("client")?.parse().ok()?;
    Some(address.to_canonical())
}

/// The number of the listener that is named, and its address.
fn listener(parameters: &Parameters, known: &[String]) -> Result<(u16, String), Refusal> {
    let wanted = parameters.text("listener");
    let place = match wanted {
        Some(wanted) => known.iter().position(|address| address == wanted),
        None => Some(0),
    };
    let number = place.and_then(|place| u16::try_from(place).ok());
    let address = place.and_then(|place| known.get(place));
    number.zip(address.cloned()).ok_or_else(|| {
        let known = known.join(", ");
        Refusal::new(StatusCode::NOT_FOUND, format!("listener: expected one of {known}"))
    })
}

/// A query as a usual client sends it.
fn message(qname: Name<'_>, qtype: Rtype) -> Result<Vec<u8>, Refusal> {
    let header = Header { id: 0, flags: Flags(Flags::RD), counts: [1, 0, 0, 1] };
    let mut encoder = Encoder::new(header, CLASSIC_UDP_BYTES.into());
    let written = encoder.question(qname, qtype, Class::IN).and_then(|()| encoder.bytes(&OPT));
    written.map_err(|_| Refusal::bad("the name is too long"))?;
    Ok(encoder.into_message())
}

fn describe(core: usize, explained: &Explained) -> Value {
    let steps: Vec<Value> = explained
        .steps
        .iter()
        .map(|step| json!({ "stage": step.stage.name(), "outcome": step.outcome, "text": step.text }))
        .collect();
    json!({
        "core": core,
        "verdict": explained.verdict,
        "answer": explained.answer(),
        "list": explained.list,
        "rcode": explained.rcode.map(|rcode| rcode.to_string()),
        "steps": steps,
    })
}

/// The last decisions that are `wanted`, of all cores, newest first.
async fn recall(wanted: &Wanted, shared: &Shared) -> Result<Vec<Value>, Refusal> {
    let listeners = &shared.node.about().listen;
    let mut all: Vec<(usize, Decided)> = Vec::new();
    for (core, desk) in shared.node.desks().iter().enumerate() {
        let wanted = Box::new(wanted.clone());
        let own = ask(core, desk, |back| Request::Decisions(wanted, back)).await?;
        all.extend(own.into_iter().map(|decided| (core, decided)));
    }
    all.sort_by_key(|(_, decided)| std::cmp::Reverse(decided.decision.time));
    all.truncate(wanted.limit);
    Ok(all.iter().map(|(core, decided)| told(*core, decided, listeners)).collect())
}

fn told(core: usize, Decided { decision, name }: &Decided, listeners: &[String]) -> Value {
    let Decision { time, address, group, how, list, latency_us, .. } = *decision;
    let said = decision.ede.filter(|ede| !ede.text.is_empty()).map(|ede| ede.text);
    let upstream = decision.via.map(|via| match via.protocol {
        "udp" => via.address.to_string(),
        protocol => format!("{protocol}://{}", via.address),
    });
    json!({
        "core": core,
        "time_ms": time.as_millis(),
        "name": bare(name),
        "type": Rtype(decision.qtype).to_string(),
        "client": address.to_string(),
        "transport": match decision.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        },
        "listener": listeners.get(usize::from(decision.listener)),
        "group": group,
        "answer": how.name(),
        "list": list,
        "rcode": decision.rcode.map(|rcode| Rcode(rcode).to_string()),
        "ede": decision.ede.map(|ede| ede.code),
        "reason": said,
        "upstream": upstream,
        "latency_us": latency_us,
    })
}
