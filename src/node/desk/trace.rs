//! What a core would do with a query, and what it has done with the last ones.

use std::rc::Rc;
use std::time::Duration;

use glommio::timer::Timer;
use tokio::sync::oneshot;

use crate::config::Selection;
use crate::control::desk::{Decided, Hypothetical, Wanted};
use crate::node::worker::Worker;
use crate::observe::Decision;
use crate::resolve::{Outlook, Reason, State};
use crate::serve::{Explained, Fate, Stage, Step};
use crate::wire::Name;

/// How long others have the core after each part of what it remembers.
const PART_PAUSE: Duration = Duration::from_micros(200);

/// What would become of `question`, down to who would be asked.
pub(super) fn trace(worker: &Worker, question: &Hypothetical) -> Option<Box<Explained>> {
    let (mut explained, outlook) = worker.explain(&question.message, question.client)?;
    if let Some(outlook) = outlook {
        let is_asked = matches!(explained.fate, Fate::Wait(..));
        if let (true, Some(first)) = (is_asked, outlook.upstreams.first()) {
            explained.verdict += &format!(", {} first", first.upstream);
        }
        let outcome = if is_asked { "asked" } else { "not asked" };
        let text = asked(&outlook);
        explained.steps.push(Step { stage: Stage::Upstreams, outcome, text });
    }
    Some(Box::new(explained))
}

/// Who is asked, in which order, and how they are.
fn asked(outlook: &Outlook) -> String {
    let whose = match &outlook.zone {
        Some(apex) => format!("[[forward]] zone {}", apex.as_name()),
        None => "no [[forward]] zone".to_owned(),
    };
    let order = match outlook.selection {
        Selection::Ordered => "in this order",
        Selection::RoundRobin => "in turn, now",
        Selection::Fastest => "the better of two drawn at random, best first",
    };
    let all: Vec<String> = outlook.upstreams.iter().map(upstream).collect();
    format!("{whose}; {order}: {}", all.join(", "))
}

fn upstream(state: &State) -> String {
    let usual = match state.rtt_us {
        Some(us) => format!("{:.1} ms", us / 1_000.0),
        None => "not asked yet".to_owned(),
    };
    let rest = match state.rest {
        Some((Reason::Silence, left)) => format!(", rests for silence, {left:.0} s more"),
        Some((Reason::Failures, left)) => format!(", rests for failures, {left:.0} s more"),
        None => String::new(),
    };
    let in_clear = if state.is_in_clear { ", in clear: no TLS" } else { "" };
    let in_flight = match state.in_flight {
        0 => String::new(),
        count => format!(", {count} in flight"),
    };
    format!("{} ({usual}{rest}{in_clear}{in_flight})", state.upstream)
}

/// Goes through the last decisions, a part at a time, until there are as many as are wanted.
pub(super) async fn recall(
    worker: Rc<Worker>,
    wanted: Box<Wanted>,
    back: oneshot::Sender<Vec<Decided>>,
) {
    let mut found = Vec::new();
    let mut next = Some(worker.look_at_decisions(|decisions| decisions.noted()));
    while let Some(before) = next.filter(|_| found.len() < wanted.limit) {
        next = worker.look_at_decisions(|decisions| {
            decisions.visit(before, |decision| {
                if found.len() < wanted.limit
                    && let Some(decided) = wanted_of(&decision, &wanted)
                {
                    found.push(decided);
                }
            })
        });
        if back.is_closed() {
            return;
        }
        Timer::new(PART_PAUSE).await;
    }
    // Whoever does not wait any more for an answer gets none.
    let _ = back.send(found);
}

/// `decision`, if it is wanted.
fn wanted_of(decision: &Decision<'_>, wanted: &Wanted) -> Option<Decided> {
    let name = Name::parse(decision.qname).ok()?;
    let is_wanted = wanted.name.as_ref().is_none_or(|own| name.is_same(own.as_name()))
        && wanted.under.as_ref().is_none_or(|apex| name.is_within(apex.as_name()))
        && wanted.client.is_none_or(|client| decision.address == client.to_canonical());
    is_wanted
        .then(|| Decided { decision: Decision { qname: &[], ..*decision }, name: name.to_string() })
}
