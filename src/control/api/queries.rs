//! The query log for whoever may see it: searched in the store, and what is seen most of late.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::cache::rtype;
use super::names::{bare, name};
use super::parameters::Parameters;
use super::reply::{Refusal, Reply, json};
use super::routes::{QUERIES_DEFAULT, TOP_DEFAULT};
use super::{Node, Shared};
use crate::config::OVERRIDES_NAME;
use crate::control::log::{Filter, Kind, Look, NameFilter, Often, Recorder, Stored, look};
use crate::observe::log::How;
use crate::wire::Rcode;

/// Searches at a time: each may take its five seconds of a CPU and of the disk.
pub(super) const SEARCHES_MAX: usize = 2;

/// How long what is seen most is told again before it is summed up anew.
const MOST_AGE_MAX: Duration = Duration::from_millis(900);

/// How many of what is seen most go with the figures of each second.
const LIVE_TOP: usize = 10;

/// Queries that were written down, newest first.
pub(super) async fn search_store(
    parameters: &Parameters,
    shared: &Arc<Shared>,
) -> Result<Reply, Refusal> {
    let filter = filter(parameters)?;
    let limit = parameters.count("limit").unwrap_or(QUERIES_DEFAULT);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let part = parameters.text("name").unwrap_or_default().to_ascii_lowercase();
    let path = shared.node.recorder().and_then(Recorder::store).ok_or_else(|| {
        Refusal::new(
            StatusCode::CONFLICT,
            "query_log.path names no file in the config: no query is stored",
        )
    })?;
    let path = path.to_owned();
    let turn = Arc::clone(&shared.searching)
        .try_acquire_owned()
        .map_err(|_| Refusal::busy(format!("{SEARCHES_MAX} searches are under way already")))?;
    // It may take its time, which is bounded; a client that leaves does not end it.
    let searched = tokio::task::spawn_blocking(move || {
        let found = look(&path, &filter, limit);
        drop(turn);
        found
    });
    match searched.await {
        Ok(Ok(found)) => {
            let mut told = told(&found, limit, &part);
            told["unknown"] = unknown(parameters, &*shared.node).into();
            Ok(json(&told))
        }
        Ok(Err(error)) => {
            tracing::warn!("query log: a search failed: {error}");
            Err(Refusal::busy(format!("the store cannot be searched: {error}")))
        }
        Err(_) => Err(Refusal::busy("the node ends")),
    }
}

fn filter(parameters: &Parameters) -> Result<Filter, Refusal> {
    let owned = |name: &str| parameters.text(name).map(str::to_owned);
    // Where both are said, the store looks for what is below, and the rest is left out of what it finds.
    let under = parameters.text("under").map(name).transpose()?;
    let name = match (under, owned("name")) {
        (Some(apex), _) => Some(NameFilter::Within(apex.as_name().to_string())),
        (None, Some(text)) => Some(NameFilter::Contains(text)),
        (None, None) => None,
    };
    let millis = |name: &str| {
        let seconds = parameters.count(name)?;
        i64::try_from(seconds.saturating_mul(1_000)).ok()
    };
    Ok(Filter {
        name,
        client: parameters.text("client").and_then(|text| text.parse().ok()),
        group: owned("group"),
        how: parameters.text("answer").and_then(How::named),
        list: owned("list"),
        qtype: rtype(parameters)?.map(|rtype| rtype.0),
        rcode: parameters.text("rcode").and_then(Rcode::from_text).map(|rcode| rcode.0),
        since_ms: millis("since"),
        until_ms: millis("until"),
        before: parameters.count("before").and_then(|id| i64::try_from(id).ok()),
    })
}

/// One page: those of `found` whose names contain `part`.
fn told(found: &Look, limit: usize, part: &str) -> Value {
    let Look { queries, resume, broken } = found;
    // There may be more behind a full page, and behind one that took too long.
    let last = queries.last().filter(|_| queries.len() >= limit).map(|query| query.id);
    let is_whole = resume.is_none() && *broken == 0;
    let queries = queries.iter().filter(|query| query.name.contains(part));
    let queries: Vec<Value> = queries.map(Stored::to_json).collect();
    json!({ "queries": queries, "next": resume.or(last), "whole": is_whole, "broken": broken })
}

/// What a search names that is not in the config in force; there may be queries from before all the same.
fn unknown(parameters: &Parameters, node: &dyn Node) -> Vec<String> {
    let is_group = |name: &str| node.about().groups.iter().any(|group| group == name);
    let is_list = |name: &str| {
        name == OVERRIDES_NAME || node.lists().iter().any(|(list, _)| list.name == name)
    };
    let group = parameters.text("group").filter(|name| !is_group(name));
    let list = parameters.text("list").filter(|name| !is_list(name));
    let told =
        |what: &str, name: &str| format!("no {what} is called {name:?} in the config in force");
    let group = group.map(|name| told("group", name));
    group.into_iter().chain(list.map(|name| told("list", name))).collect()
}

/// What is seen most.
pub(super) async fn top(parameters: &Parameters, shared: &Arc<Shared>) -> Result<Reply, Refusal> {
    let of = parameters.text("of").unwrap_or("names");
    let (kind, _) = KINDS.into_iter().find(|(_, word)| *word == of).unwrap_or(KINDS[0]);
    let limit = parameters.count("limit").unwrap_or(TOP_DEFAULT);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let off = "query_log.top is 0 in the config: what is seen most is not counted";
    let shared = Arc::clone(shared);
    // Many counters of many cores take a while to sum up.
    let summed = tokio::task::spawn_blocking(move || {
        let recorder = recorder(&*shared.node)?;
        Some(recorder.top(kind, limit).into_iter().map(counted).collect::<Vec<Value>>())
    });
    let top = summed.await.map_err(|_| Refusal::busy("the node ends"))?;
    let top = top.ok_or_else(|| Refusal::new(StatusCode::CONFLICT, off))?;
    Ok(json(&json!({ "of": of, "top": top })))
}

/// What can be seen most, and what it is called.
const KINDS: [(Kind, &str); 3] =
    [(Kind::Names, "names"), (Kind::Clients, "clients"), (Kind::Blocked, "blocked")];

/// Who counts what is seen most, if anybody does.
fn recorder(node: &dyn Node) -> Option<&Recorder> {
    node.recorder().filter(|recorder| recorder.counts())
}

fn counted(often: Often) -> Value {
    let Often { what, count, error } = often;
    json!({ "key": bare(&what), "count": count, "error": error })
}

/// What is seen most of each kind, as of this second.
pub(super) async fn most(shared: &Arc<Shared>) -> Value {
    let shared = Arc::clone(shared);
    let summed = tokio::task::spawn_blocking(move || shared.most.told(&*shared.node));
    summed.await.unwrap_or(Value::Null)
}

/// What is seen most of each kind, summed up once a second for all who look.
#[derive(Debug, Default)]
pub(super) struct Most(Mutex<Option<(Instant, Value)>>);

impl Most {
    /// As of this second; nothing where it is not counted.
    pub(super) fn told(&self, node: &dyn Node) -> Value {
        let Some(recorder) = recorder(node) else { return Value::Null };
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((at, told)) = &*last
            && now.duration_since(*at) < MOST_AGE_MAX
        {
            return told.clone();
        }
        let of = |(kind, word): (Kind, &str)| {
            let top = recorder.top(kind, LIVE_TOP).into_iter().map(counted).collect();
            (word.to_owned(), Value::Array(top))
        };
        let told = Value::Object(KINDS.into_iter().map(of).collect());
        *last = Some((now, told.clone()));
        told
    }
}

#[cfg(test)]
mod tests {
    use super::super::routes::{Action, ROUTES};
    use super::*;

    fn read(query: &str) -> Result<Filter, Refusal> {
        let route = ROUTES.iter().find(|route| route.action == Action::Queries).unwrap();
        filter(&Parameters::of_query(query, route)?)
    }

    #[test]
    fn every_parameter_narrows_the_search() {
        let all = "under=a.test&client=192.0.2.1&group=kids&answer=blocked&list=ads&type=AAAA&rcode=NXDOMAIN\
            &since=5&until=7&before=9&limit=3";
        let expected = Filter {
            name: Some(NameFilter::Within("a.test.".into())),
            client: Some([192, 0, 2, 1].into()),
            group: Some("kids".into()),
            how: Some(How::Blocked),
            list: Some("ads".into()),
            qtype: Some(28),
            rcode: Some(3),
            since_ms: Some(5_000),
            until_ms: Some(7_000),
            before: Some(9),
        };
        assert_eq!(read(all).unwrap(), expected);
        assert_eq!(read("").unwrap(), Filter::default());
        for bad in [
            "client=me",
            "answer=never",
            "rcode=3",
            "type=x",
            "since=-1",
            "limit=0",
            "name=",
            "under=",
            "under=a..b",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(read("rcode=RCODE11").unwrap().rcode, Some(11));
    }

    #[test]
    fn there_is_a_next_page_behind_a_full_one_and_behind_one_cut_short() {
        let query = |id| Stored {
            id,
            time_ms: 1,
            name: "a.test".into(),
            qtype: 1,
            client: String::new(),
            port: 0,
            transport: String::new(),
            listener: String::new(),
            group: String::new(),
            how: String::new(),
            list: None,
            rcode: None,
            latency_us: None,
            bytes: 0,
        };
        let found = |ids: &[i64], resume| {
            let queries = ids.iter().copied().map(query).collect();
            Look { queries, resume, broken: 0 }
        };
        let page = |ids: &[i64], resume| told(&found(ids, resume), 2, "a.t")["next"].clone();
        assert_eq!(page(&[9, 7], None), 7);
        assert_eq!((page(&[9], Some(5)), page(&[], Some(5))), (json!(5), json!(5)));
        assert_eq!((page(&[9], None), page(&[], None)), (Value::Null, Value::Null));
        let found = found(&[9, 7], None);
        let others = told(&found, 2, "b.test");
        assert_eq!((&others["queries"], &others["next"]), (&json!([]), &json!(7)));
    }
}
