//! Lists, names that are overridden, and the pause of all blocking: what there is, and what the operator switches by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::{Value, json};

use super::cache::CORE_TIME_MAX;
use super::names::{self, bare};
use super::parameters::{Parameters, span};
use super::reply::{Refusal, Reply, json};
use super::{Node, Shared};
use crate::config::{List, ListKind, ListSyntax};
use crate::control::desk::{Desk, Request};
use crate::control::switches::{State, Switchboard, Until};
use crate::observe::ListCounters;
use crate::policy::{Action, Override};
use crate::time::CacheTime;
use crate::wire::NameBuf;

/// What lists and switches are.
pub(super) const LISTS: &[(&str, &str)] = &[
    ("lists", "array"),
    ("not_in_config", "array"),
    ("paused", "boolean"),
    ("paused_until", "integer?"),
    ("overrides", "array"),
    ("override_hits", "integer"),
    ("kept", "boolean"),
];

/// What a list is after it was switched.
pub(super) const SWITCHED: &[(&str, &str)] = &[
    ("list", "string"),
    ("enabled", "boolean"),
    ("enabled_again_at", "integer?"),
    ("in_config", "boolean"),
    ("kept", "boolean"),
    ("late", "integer"),
];

/// What names are after they were overridden.
pub(super) const OVERRIDDEN: &[(&str, &str)] = &[
    ("name", "string?"),
    ("names", "array"),
    ("action", "string"),
    ("subtree", "boolean"),
    ("expires_at", "integer?"),
    ("local", "array"),
    ("kept", "boolean"),
    ("late", "integer"),
];

/// What names are after that was taken back.
pub(super) const LIFTED: &[(&str, &str)] = &[
    ("name", "string?"),
    ("names", "array"),
    ("removed", "boolean"),
    ("missing", "array"),
    ("still", "array"),
    ("kept", "boolean"),
    ("late", "integer"),
];

/// What blocking is after it was paused or resumed.
pub(super) const PAUSED: &[(&str, &str)] = &[
    ("paused", "boolean"),
    ("paused_until", "integer?"),
    ("kept", "boolean"),
    ("late", "integer"),
];

/// When something that is switched ends, in seconds since the epoch: not before it does.
fn end(until: Until) -> Option<u64> {
    until.end().map(|end| end.as_millis().div_ceil(1_000))
}

/// What is in force, in figures.
pub(super) fn figures(node: &dyn Node) -> Value {
    let lists = node.lists();
    let (board, total) = (node.switchboard(), lists.len());
    board.look(|state| {
        let enabled = || lists.iter().filter(|(list, _)| state.disabled(&list.name).is_none());
        let rules = enabled().filter_map(|(_, own)| Some(own.as_ref()?.rules.value()));
        json!({
            "paused": state.pause().is_some(),
            "paused_until": state.pause().and_then(end),
            "lists": total,
            "lists_enabled": enabled().count(),
            "rules": rules.sum::<u64>(),
            "overrides": state.override_count(),
            "kept": board.is_kept(),
        })
    })
}

/// All lists, and what is switched by hand.
pub(super) fn lists(shared: &Shared) -> Reply {
    let node = &*shared.node;
    let state = node.switchboard().state();
    let hits = hits(node);
    let known = node.lists();
    let lists: Vec<Value> =
        known.iter().map(|(list, own)| describe(list, own.as_deref(), &state, &hits)).collect();
    let is_known = |name: &str| known.iter().any(|(list, _)| list.name == name);
    let not_in_config: Vec<Value> = state
        .all_disabled()
        .filter(|(name, _)| !is_known(name))
        .map(|(name, until)| {
            json!({
                "name": name,
                "enabled": false,
                "enabled_again_at": end(until),
                "state": "not in the config",
            })
        })
        .collect();
    let overrides: Vec<Value> = state
        .overrides()
        .map(|(name, entry)| {
            json!({
                "name": bare(&name.to_string()),
                "action": action_word(entry.held.action),
                "subtree": entry.held.is_subtree,
                "expires_at": end(entry.until),
            })
        })
        .collect();
    json(&json!({
        "lists": lists,
        "not_in_config": not_in_config,
        "paused": state.pause().is_some(),
        "paused_until": state.pause().and_then(end),
        "overrides": overrides,
        "override_hits": hits.get(crate::config::OVERRIDES_NAME).copied().unwrap_or_default(),
        "kept": node.switchboard().is_kept(),
    }))
}

/// How often each list has decided, on all cores.
fn hits(node: &dyn Node) -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    for (name, counts) in node.serving().iter().flat_map(|core| core.filter.counts()) {
        *all.entry(name).or_default() += counts.iter().sum::<u64>();
    }
    all
}

fn describe(
    list: &List,
    own: Option<&ListCounters>,
    state: &State,
    hits: &BTreeMap<&'static str, u64>,
) -> Value {
    let disabled = state.disabled(&list.name);
    let time = |value: u64| (value > 0).then_some(value);
    let problem = own.and_then(ListCounters::problem);
    let rules = own.map_or(0, |own| own.rules.value());
    let confirmed = own.map_or(0, |own| own.confirmed.value());
    let word = match (disabled, &problem) {
        (Some(_), _) => "disabled",
        (None, Some(_)) if rules == 0 => "missing",
        (None, Some(_)) => "out of date",
        (None, None) if confirmed == 0 => "waiting",
        (None, None) => "in force",
    };
    json!({
        "name": list.name,
        "source": list.source.to_string(),
        "syntax": list.syntax.map_or("auto", syntax_word),
        "action": match list.kind { ListKind::Block => "block", ListKind::Allow => "allow" },
        "enabled": disabled.is_none(),
        "enabled_again_at": disabled.and_then(end),
        "rules": rules,
        "bad": own.map_or(0, |own| own.bad_lines.value()),
        "skipped": own.map_or(0, |own| own.skipped_lines.value()),
        "loaded_at": time(confirmed),
        "next_at": time(own.map_or(0, |own| own.due.value())),
        "state": word,
        "error": problem,
        "hits": hits.get(list.name.as_str()).copied().unwrap_or_default(),
    })
}

const fn syntax_word(syntax: ListSyntax) -> &'static str {
    match syntax {
        ListSyntax::Hosts => "hosts",
        ListSyntax::Domains => "domains",
        ListSyntax::Adblock => "adblock",
        ListSyntax::Dnsmasq => "dnsmasq",
        ListSyntax::Rpz => "rpz",
    }
}

const fn action_word(action: Action) -> &'static str {
    match action {
        Action::Block => "block",
        Action::Allow => "allow",
    }
}

/// Has lists looked at.
pub(super) fn refresh(parameters: &Parameters, shared: &Shared) -> Result<Reply, Refusal> {
    let list = parameters.text("list");
    let lists = shared.node.lists();
    if lists.is_empty() {
        return Err(Refusal::new(StatusCode::CONFLICT, "there is no [[list]] in the config"));
    }
    if let Some(list) = list {
        ensure_known(list, &*shared.node)?;
    }
    tracing::info!("lists: looked at by command: {}", list.unwrap_or("all"));
    shared.node.refresh_lists(list);
    Ok(json(&json!({ "asked": true })))
}

fn ensure_known(list: &str, node: &dyn Node) -> Result<(), Refusal> {
    let lists = node.lists();
    if lists.iter().any(|(known, _)| known.name == list) {
        return Ok(());
    }
    let known: Vec<String> = lists.iter().map(|(list, _)| format!("{:?}", list.name)).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let list: String = list.chars().take(80).collect();
    Err(Refusal::new(
        StatusCode::NOT_FOUND,
        format!("no list is called {list:?}; there are: {known}"),
    ))
}

/// Has a list count again.
pub(super) async fn enable(
    parameters: &Parameters,
    shared: &Arc<Shared>,
) -> Result<Reply, Refusal> {
    let list = parameters.text("list").unwrap_or_default().to_owned();
    let known = ensure_known(&list, &*shared.node);
    let in_config = known.is_ok();
    // One that the config has no more may be disabled still.
    if !shared.node.switchboard().look(|state| state.disabled(&list).is_some()) {
        known?;
    }
    switch(shared, move |board, _| {
        board.enable(&list);
        Ok(json!({
            "list": list,
            "enabled": true,
            "enabled_again_at": null,
            "in_config": in_config,
        }))
    })
    .await
}

/// Has a list count for nobody.
pub(super) async fn disable(
    parameters: &Parameters,
    shared: &Arc<Shared>,
) -> Result<Reply, Refusal> {
    let list = parameters.text("list").unwrap_or_default().to_owned();
    ensure_known(&list, &*shared.node)?;
    let length = length(parameters);
    switch(shared, move |board, now| {
        let until = Until::after(now, length);
        board.disable(&list, until, now).map_err(full)?;
        Ok(json!({
            "list": list,
            "enabled": false,
            "enabled_again_at": end(until),
            "in_config": true,
        }))
    })
    .await
}

/// Blocks or allows names.
pub(super) async fn add_override(
    parameters: &Parameters,
    shared: &Arc<Shared>,
) -> Result<Reply, Refusal> {
    let names = names::to_override(parameters)?;
    let action = match parameters.text("action") {
        Some("allow") => Action::Allow,
        _ => Action::Block,
    };
    let (is_subtree, length) = (parameters.is_on("subtree"), length(parameters));
    let local: Vec<String> =
        names.iter().filter(|name| shared.node.holds(name)).map(told).collect();
    switch(shared, move |board, now| {
        let until = Until::after(now, length);
        board.override_names(&names, Override { action, is_subtree }, until, now).map_err(full)?;
        Ok(json!({
            "name": one(&names),
            "names": names.iter().map(told).collect::<Vec<_>>(),
            "action": action_word(action),
            "subtree": is_subtree,
            "expires_at": end(until),
            "local": local,
        }))
    })
    .await
}

/// Takes what was said of names back.
pub(super) async fn remove_override(
    parameters: &Parameters,
    shared: &Arc<Shared>,
) -> Result<Reply, Refusal> {
    let names = names::all(parameters)?;
    switch(shared, move |board, _| {
        let missing = board.remove_overrides(&names);
        let still: Vec<Value> =
            board.look(|state| names.iter().filter_map(|name| reached(state, name)).collect());
        Ok(json!({
            "name": one(&names),
            "names": names.iter().map(told).collect::<Vec<_>>(),
            "removed": missing.len() < names.len(),
            "missing": missing.into_iter().map(told).collect::<Vec<_>>(),
            "still": still,
        }))
    })
    .await
}

/// What is said of a name above `name` and reaches it, if anything is.
fn reached(state: &State, name: &NameBuf) -> Option<Value> {
    let (above, action) = state.above(name)?;
    let above = bare(&above.to_string());
    Some(json!({ "name": told(name), "action": action_word(action), "by": above }))
}

fn told(name: &NameBuf) -> String {
    bare(&name.as_name().to_string())
}

/// The name, where it is one.
fn one(names: &[NameBuf]) -> Option<String> {
    match names {
        [name] => Some(told(name)),
        _ => None,
    }
}

/// Has nothing blocked for a while.
pub(super) async fn pause(parameters: &Parameters, shared: &Arc<Shared>) -> Result<Reply, Refusal> {
    let length = length(parameters);
    switch(shared, move |board, now| {
        let until = Until::after(now, length);
        board.pause(until, now);
        Ok(json!({ "paused": true, "paused_until": end(until) }))
    })
    .await
}

/// Has blocking go on.
pub(super) async fn resume(shared: &Arc<Shared>) -> Result<Reply, Refusal> {
    switch(shared, |board, _| {
        board.resume();
        Ok(json!({ "paused": false, "paused_until": null }))
    })
    .await
}

fn length(parameters: &Parameters) -> Option<Duration> {
    parameters.text("for").and_then(span)
}

fn full(full: crate::control::switches::Full) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, full.to_string())
}

/// Has `change` made to what is switched, waits until all cores go by it, and writes it down. On a thread that may block; what it
/// gives is told, and whether it will survive a restart.
async fn switch(
    shared: &Arc<Shared>,
    change: impl FnOnce(&Switchboard, CacheTime) -> Result<Value, Refusal> + Send + 'static,
) -> Result<Reply, Refusal> {
    let gone = |_| Refusal::busy("the node ends");
    let turn = Arc::clone(&shared.switching)
        .acquire_owned()
        .await
        .map_err(|_| Refusal::busy("the node ends"))?;
    let shared = Arc::clone(shared);
    let work = move || {
        let node = &*shared.node;
        let board = node.switchboard();
        let mut told = change(board, node.now())?;
        told["late"] = wait_for_cores(node.desks()).into();
        let kept = board.keep(node.now()).inspect_err(|error| {
            tracing::warn!("what is switched by hand does not survive a restart for now: it cannot be written down: {error}");
        });
        told["kept"] = kept.unwrap_or(false).into();
        drop(turn);
        Ok(json(&told))
    };
    tokio::task::spawn_blocking(work).await.map_err(gone)?
}

/// Wakes all cores, waits until each goes by what is in force, and gives how many do not yet: they will.
fn wait_for_cores(desks: &[Desk]) -> usize {
    let (done, all_done) = channel();
    let asked = desks.iter().filter(|desk| desk.ask(Request::TakeUp(done.clone())).is_ok()).count();
    drop(done);
    let deadline = monotonic() + CORE_TIME_MAX;
    let is_done = |_: &usize| {
        let left = deadline.saturating_duration_since(monotonic());
        all_done.recv_timeout(left).is_ok()
    };
    desks.len() - (0..asked).take_while(is_done).count()
}

#[expect(clippy::disallowed_methods, reason = "control reads the clock to end what takes long")]
fn monotonic() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_without_room_for_the_request_is_told_to_be_late() {
        let (idle, attended) = Desk::open().unwrap();
        let (busy, _inbox) = Desk::open().unwrap();
        while busy.ask(Request::Upstreams(tokio::sync::oneshot::channel().0)).is_ok() {}
        let core = std::thread::spawn(move || {
            let Ok(Request::TakeUp(done)) = attended.queue.recv() else {
                panic!("another request")
            };
            done.send(()).unwrap();
        });
        assert_eq!(wait_for_cores(&[idle, busy]), 1);
        core.join().unwrap();
    }
}
