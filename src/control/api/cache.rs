//! What the caches hold, and what they are to forget.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::names::{bare, name};
use super::parameters::Parameters;
use super::reply::{Content, Refusal, Reply, json, with};
use super::routes::{DUMP_DEFAULT, LINES};
use super::{Owner, Shared};
use crate::cache::{Flush, Scope, Segment, State};
use crate::control::desk::{Desk, Finding, Request, Row};
use crate::wire::{NameBuf, Rtype};

/// How long a core may take to answer: it looks at its desk between batches.
pub(super) const CORE_TIME_MAX: Duration = Duration::from_secs(5);

/// Parts of a dump that may wait for the client.
const PARTS_WAITING: usize = 4;

/// Asks `desk` what `request` makes of the way back, and waits for the answer.
pub(super) async fn ask<T>(
    core: usize,
    desk: &Desk,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Refusal> {
    let (sender, receiver) = oneshot::channel();
    desk.ask(request(sender)).map_err(|busy| Refusal::busy(format!("core {core}: {busy}")))?;
    match timeout(CORE_TIME_MAX, receiver).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(Refusal::busy(format!("core {core} does not answer"))),
    }
}

pub(super) fn rtype(parameters: &Parameters) -> Result<Option<Rtype>, Refusal> {
    let Some(text) = parameters.text("type") else { return Ok(None) };
    let known = Rtype::from_text(text);
    known
        .map(Some)
        .ok_or_else(|| Refusal::bad(format!("{text:?} is no record type such as A or TYPE65280")))
}

/// What each core would answer.
pub(super) async fn look_up(parameters: &Parameters, shared: &Shared) -> Result<Reply, Refusal> {
    let qname = name(parameters.text("name").unwrap_or_default())?;
    let qtype = rtype(parameters)?.unwrap_or(Rtype::A);
    let mut cores = Vec::new();
    for (core, desk) in shared.node.desks().iter().enumerate() {
        let findings =
            ask(core, desk, |back| Request::Explain(Box::new(qname.clone()), qtype, back)).await?;
        for Finding { view, outcome, row } in findings {
            let entry = row.as_ref().map(describe);
            cores.push(json!({ "core": core, "view": view, "outcome": outcome, "entry": entry }));
        }
    }
    let (owner, is_spread) = Owner::told(shared.node.owner(&qname));
    Ok(json(&json!({
        "name": bare(&qname.as_name().to_string()),
        "type": qtype.to_string(),
        "owner": owner,
        "spread": is_spread,
        "cores": cores,
    })))
}

fn describe(row: &Row) -> Value {
    let state = match row.state {
        State::Fresh => "fresh",
        State::Stale => "stale",
        State::Over => "over",
        State::Flushed => "flushed",
    };
    let segment = match row.segment {
        Segment::Probation => "probation",
        Segment::Protected => "protected",
        Segment::Hot => "hot",
    };
    json!({
        "name": bare(&row.name),
        "type": row.qtype.map(|qtype| qtype.to_string()),
        "rcode": row.rcode.to_string(),
        "ttl": row.ttl,
        "state": state,
        "segment": segment,
        "accesses": row.accesses,
        "dnssec": row.has_dnssec,
        "bytes": row.bytes,
    })
}

/// Streams the entries of all cores.
pub(super) fn dump(parameters: &Parameters, shared: &Arc<Shared>) -> Result<Reply, Refusal> {
    let under = name(parameters.text("under").unwrap_or("."))?;
    let limit = parameters.count("limit").unwrap_or(DUMP_DEFAULT);
    let (pieces, body) = mpsc::channel(PARTS_WAITING);
    let shared = Arc::clone(shared);
    let Ok(turn) = Arc::clone(&shared.dumping).try_acquire_owned() else {
        return Err(Refusal::busy("a dump is under way already"));
    };
    tokio::spawn(async move {
        // Whoever has left needs no word.
        let _ = send_all(&shared, &under, limit, &pieces).await;
        drop(turn);
    });
    Ok(with(LINES, Content::Pieces(body)))
}

async fn send_all(
    shared: &Shared,
    under: &NameBuf,
    limit: u64,
    pieces: &mpsc::Sender<Bytes>,
) -> Result<(), mpsc::error::SendError<Bytes>> {
    let mut left = usize::try_from(limit).unwrap_or(usize::MAX);
    for (core, desk) in shared.node.desks().iter().enumerate() {
        let (sender, mut parts) = mpsc::channel(PARTS_WAITING);
        if let Err(busy) = desk.ask(Request::Dump(Box::new(under.clone()), sender)) {
            let line = format!("{}\n", json!({ "core": core, "error": busy.to_string() }));
            pieces.send(line.into()).await?;
            continue;
        }
        while left > 0
            && let Some(rows) = parts.recv().await
        {
            let mut lines = String::new();
            for row in rows.iter().take(left) {
                let mut line = describe(row);
                line["core"] = core.into();
                lines.push_str(&line.to_string());
                lines.push('\n');
            }
            left -= rows.len().min(left);
            pieces.send(lines.into()).await?;
        }
    }
    Ok(())
}

/// Has all cores forget what the request says.
pub(super) async fn flush(parameters: &Parameters, shared: &Shared) -> Result<Reply, Refusal> {
    let (flush, said) = what_to_flush(parameters)?;
    let desks = shared.node.desks();
    let desk = desks.first().ok_or_else(|| Refusal::busy("no core is there"))?;
    // The first core tells the others.
    ask(0, desk, |back| Request::Flush(Box::new(flush), back)).await?;
    tracing::info!("flushed by command: {said}");
    Ok(json(&json!({ "flushed": said })))
}

fn what_to_flush(parameters: &Parameters) -> Result<(Flush, String), Refusal> {
    let (owner, rtype) = (parameters.text("name").map(name).transpose()?, rtype(parameters)?);
    let is_subtree = parameters.is_on("subtree");
    let of_type = rtype.map(|rtype| format!(", type {rtype}")).unwrap_or_default();
    match (owner, rtype) {
        (Some(name), rtype) => {
            let scope = if is_subtree { Scope::Subtree } else { Scope::Exact };
            let below = if is_subtree { " and below" } else { "" };
            let said = format!("{}{below}{of_type}", bare(&name.as_name().to_string()));
            Ok((Flush::Names { name, scope, rtype }, said))
        }
        (None, Some(rtype)) => Ok((Flush::Type(rtype), format!("all names{of_type}"))),
        (None, None) if parameters.is_on("all") => Ok((Flush::All, "everything".to_owned())),
        (None, None) => Err(Refusal::bad("say what to flush")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::routes::{Action, ROUTES};
    use super::*;

    fn said(body: &str) -> Option<String> {
        let route = ROUTES.iter().find(|route| route.action == Action::Flush).unwrap();
        let parameters = Parameters::of_json(body.as_bytes(), route).ok()?;
        what_to_flush(&parameters).ok().map(|(_, said)| said)
    }

    #[test]
    fn flush_says_what_it_forgets_and_takes_nothing_unclear() {
        for (body, words) in [
            (r#"{"all": true}"#, Some("everything")),
            (r#"{"type": "aaaa"}"#, Some("all names, type AAAA")),
            (r#"{"name": "A.example"}"#, Some("a.example")),
            (
                r#"{"name": "a.example.", "subtree": true, "type": "A"}"#,
                Some("a.example and below, type A"),
            ),
            ("{}", None),
            (r#"{"all": true, "type": "A"}"#, None),
            (r#"{"all": true, "name": "a"}"#, None),
            (r#"{"subtree": true}"#, None),
            (r#"{"subtree": true, "type": "A"}"#, None),
            (r#"{"all": false}"#, None),
            (r#"{"all": false, "name": "a"}"#, None),
            (r#"{"name": "a..b"}"#, None),
            (r#"{"name": "", "subtree": true}"#, None),
            (r#"{"name": ".", "subtree": true}"#, Some(". and below")),
            (r#"{"name": "m\u00fcller.example"}"#, None),
            (r#"{"name": "a b.example"}"#, None),
            (r#"{"name": "a\\032b.example"}"#, Some("a\\032b.example")),
            (r#"{"name": "a", "type": "NONE"}"#, None),
        ] {
            assert_eq!(said(body).as_deref(), words, "{body}");
        }
    }
}
