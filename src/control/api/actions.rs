//! What is done for each request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderMap};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::guard::Access;
use super::parameters::Parameters;
use super::reply::{Content, Refusal, Reply, json, text, with};
use super::routes::{Action, EVENTS};
use super::{Shared, blocking, cache, explain, openapi, queries};
use crate::config::LogLevel;
use crate::control::desk::{Request, UpstreamState};
use crate::observe::{Exposition, Format, ServingCounters};

/// How long a status waits for the cores.
const STATUS_TIME_MAX: Duration = Duration::from_secs(1);

/// From this usual time to an answer on, in milliseconds, an upstream is slow: half of what it is given by default.
const SLOW_MS: f64 = 400.0;

/// Does what `action` says.
///
/// # Errors
/// The refusal.
pub(super) async fn carry_out(
    action: Action,
    parameters: &Parameters,
    headers: &HeaderMap,
    shared: &Arc<Shared>,
) -> Result<Reply, Refusal> {
    let node = &*shared.node;
    match action {
        Action::Metrics => Ok(metrics(headers, shared)),
        Action::OpenApi => Ok(json(&openapi::document())),
        Action::Status => Ok(status(shared).await),
        Action::Config => {
            let about = node.about();
            let told = about.config.iter();
            let config: serde_json::Map<String, Value> =
                told.map(|(section, text)| ((*section).to_owned(), text.clone().into())).collect();
            Ok(json(&json!({ "config": config, "toml": about.toml })))
        }
        Action::Stats => Ok(stats(shared)),
        Action::Live => Ok(live(headers, shared)),
        Action::History => Ok(shared.rates.history()),
        Action::Lists => Ok(blocking::lists(shared)),
        Action::EnableList => blocking::enable(parameters, shared).await,
        Action::DisableList => blocking::disable(parameters, shared).await,
        Action::RefreshLists => blocking::refresh(parameters, shared),
        Action::AddOverride => blocking::add_override(parameters, shared).await,
        Action::RemoveOverride => blocking::remove_override(parameters, shared).await,
        Action::Pause => blocking::pause(parameters, shared).await,
        Action::Resume => blocking::resume(shared).await,
        Action::Queries => queries::search_store(parameters, shared).await,
        Action::Top => queries::top(parameters, shared).await,
        Action::Upstreams => upstreams(shared).await,
        Action::Explain => explain::explain(parameters, shared).await,
        Action::Decisions => explain::decisions(parameters, shared).await,
        Action::Lookup => cache::look_up(parameters, shared).await,
        Action::Dump => cache::dump(parameters, shared),
        Action::Flush => cache::flush(parameters, shared).await,
        Action::Snapshot if node.snapshot() => Ok(json(&json!({ "asked": true }))),
        Action::Snapshot => {
            Err(Refusal::new(StatusCode::CONFLICT, "cache.snapshot names no file in the config"))
        }
        Action::Reload => reload(shared).await,
        Action::LogLevel => Ok(log_level(node.log_level())),
        Action::SetLogLevel => {
            let word = parameters.text("level").unwrap_or_default();
            let level = LogLevel::from_text(word).ok_or_else(|| Refusal::bad("level: unknown"))?;
            node.set_log_level(level);
            tracing::warn!("log level set to {word} by command");
            Ok(log_level(level))
        }
    }
}

async fn reload(shared: &Shared) -> Result<Reply, Refusal> {
    let (back, told) = oneshot::channel();
    if !shared.node.reload(back) {
        return Err(Refusal::busy("a reload waits already"));
    }
    match told.await {
        Ok(Ok(report)) => Ok(json(&report)),
        Ok(Err(mistake)) => Err(Refusal::new(StatusCode::CONFLICT, mistake)),
        Err(_) => Err(Refusal::busy("the node does not reload any more")),
    }
}

fn log_level(level: LogLevel) -> Reply {
    json(&json!({ "level": level.as_text() }))
}

fn metrics(headers: &HeaderMap, shared: &Shared) -> Reply {
    let format = format_for(headers);
    let mut out = Exposition::default();
    shared.node.expose(&mut out);
    text(format.media_type(), out.finish(format))
}

/// OpenMetrics for whoever names it, as Prometheus does; the classic form for all others.
fn format_for(headers: &HeaderMap) -> Format {
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let mut media = accepts.flat_map(|accept| accept.split(','));
    let is_open = |media: &str| {
        let mut parts = media.split(';').map(str::trim);
        let is_named = parts.next() == Some("application/openmetrics-text");
        is_named && !parts.any(|part| part == "q=0")
    };
    if media.any(is_open) { Format::Open } else { Format::Classic }
}

async fn status(shared: &Shared) -> Reply {
    let node = &*shared.node;
    let about = node.about();
    let steering = node.steering();
    let cores: Vec<Value> = about
        .cores
        .iter()
        .enumerate()
        .map(|(core, about)| json!({ "core": core, "cpu": about.cpu, "numa": about.numa }))
        .collect();
    let optimizations: serde_json::Map<String, Value> =
        about.optimizations.iter().map(|&(name, is_on)| (name.to_owned(), is_on.into())).collect();
    json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": shared.since.elapsed().as_secs(),
        "listen": about.listen,
        "cores": cores,
        "memory": about.memory,
        "cache_bytes_max": about.cache_bytes_max,
        "io": about.io,
        "fallbacks": about.fallbacks,
        "steering": { "mode": steering.mode, "why": steering.why, "spread": steering.spread },
        "optimizations": optimizations,
        "log_level": node.log_level().as_text(),
        "blocking": blocking::figures(node),
        "upstreams": upstream_figures(shared).await,
    }))
}

/// How many upstreams there are, and are of how much use; nothing when a core takes its time to tell.
async fn upstream_figures(shared: &Shared) -> Value {
    match timeout(STATUS_TIME_MAX, states(shared)).await {
        Ok(Ok(all)) => figures_of(all.iter().map(|one| &one.cores[..])),
        Ok(Err(_)) | Err(_) => Value::Null,
    }
}

/// The figures of upstreams, of each of which its cores tell.
fn figures_of<'s>(all: impl Iterator<Item = &'s [UpstreamState]>) -> Value {
    let (mut count, mut down, mut slow) = (0, 0, 0);
    for cores in all {
        let resting = cores.iter().filter(|core| core.rest.is_some()).count();
        let (sum, known) = cores
            .iter()
            .filter_map(|core| core.rtt_ms)
            .fold((0.0, 0.0), |(sum, known), ms| (sum + ms, known + 1.0));
        count += 1;
        if resting == cores.len() {
            down += 1;
        } else if resting > 0 || sum >= SLOW_MS * known && known > 0.0 {
            slow += 1;
        }
    }
    json!({ "count": count, "down": down, "slow": slow })
}

fn stats(shared: &Shared) -> Reply {
    let node = &*shared.node;
    let serving = node.serving();
    let drops = node.kernel_drops();
    let sum =
        |part: fn(&ServingCounters) -> u64| serving.iter().map(|core| part(core)).sum::<u64>();
    let (hits, misses) = (sum(|core| core.hits.value()), sum(|core| core.misses.value()));
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let hit_rate = (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64);
    let mut responses = serde_json::Map::new();
    for (rcode, count) in serving.iter().flat_map(|core| core.responses()) {
        let so_far = responses.get(rcode).and_then(Value::as_u64).unwrap_or_default();
        responses.insert(rcode.to_owned(), (so_far + count).into());
    }
    let core = |(number, (counters, drops)): (usize, (&&ServingCounters, &u64))| {
        json!({
            "core": number,
            "queries": counters.queries(),
            "hits": counters.hits.value(),
            "misses": counters.misses.value(),
            "hit_rate": counters.hit_rate(),
            "entries": counters.entries.value(),
            "bytes": counters.cache_bytes.value(),
            "in_flight": counters.in_flight.value(),
            "kernel_drops": drops,
        })
    };
    let cores: Vec<Value> = serving.iter().zip(&drops).enumerate().map(core).collect();
    json(&json!({
        "recent": shared.rates.recent(node),
        "total": {
            "queries": sum(ServingCounters::queries),
            "hits": hits,
            "misses": misses,
            "hit_rate": hit_rate,
            "stale": sum(|core| core.stale.value()),
            "blocked": sum(|core| core.blocked.value()),
            "local": sum(|core| core.local.value()),
            "failures": sum(|core| core.failures.value()),
            "refreshes": sum(|core| core.refreshes.value()),
            "evictions": sum(|core| core.evictions.value()),
            "entries": sum(|core| core.entries.value()),
            "bytes": sum(|core| core.cache_bytes.value()),
            "in_flight": sum(|core| core.in_flight.value()),
            "kernel_drops": drops.iter().sum::<u64>(),
        },
        "responses": responses,
        "cores": cores,
    }))
}

/// Sends what each second was like until the client leaves or its token holds no more; what is seen most only to those who may see what
/// clients ask.
fn live(headers: &HeaderMap, shared: &Arc<Shared>) -> Reply {
    let (pieces, body) = mpsc::channel(1);
    let mut seconds = shared.rates.seconds();
    let (headers, shared) = (headers.clone(), Arc::clone(shared));
    tokio::spawn(async move {
        while seconds.changed().await.is_ok() {
            if !shared.guard.still_knows(&headers) {
                return;
            }
            let mut second = seconds.borrow_and_update().clone();
            let is_trusted = shared.guard.permit(Access::Control).is_ok();
            if is_trusted && second.is_object() {
                second["top"] = queries::most(&shared).await;
            }
            let event = format!("data: {second}\n\n");
            if pieces.send(Bytes::from(event)).await.is_err() {
                return;
            }
        }
    });
    with(EVENTS, Content::Pieces(body))
}

/// One upstream as all cores know it, in their order.
struct Known {
    upstream: String,
    protocol: &'static str,
    cores: Vec<UpstreamState>,
}

/// What each core knows of each upstream, upstream by upstream.
async fn states(shared: &Shared) -> Result<Vec<Known>, Refusal> {
    let mut all: Vec<Known> = Vec::new();
    for (core, desk) in shared.node.desks().iter().enumerate() {
        for state in cache::ask(core, desk, Request::Upstreams).await? {
            match all.iter_mut().find(|known| known.upstream == state.upstream) {
                Some(known) => known.cores.push(state),
                None => all.push(Known {
                    upstream: state.upstream.clone(),
                    protocol: state.protocol,
                    cores: vec![state],
                }),
            }
        }
    }
    Ok(all)
}

/// The same with what has come of asking them, for whoever looks.
async fn upstreams(shared: &Shared) -> Result<Reply, Refusal> {
    let all = states(shared).await?;
    let tallies = shared.node.upstream_tallies();
    let all: Vec<Value> = all
        .into_iter()
        .map(|Known { upstream, protocol, cores }| {
            let tally = tallies.iter().find(|tally| tally.upstream == upstream).cloned();
            let tally = tally.unwrap_or_default();
            let cores = cores.iter().enumerate().map(|(core, state)| describe(core, state));
            json!({
                "upstream": upstream,
                "protocol": protocol,
                "useful": tally.useful,
                "failed": tally.failed,
                "late": tally.late,
                "stream_queries": tally.stream_queries,
                "stream_queries_reusing": tally.stream_queries_reusing,
                "streams_opened": tally.streams_opened,
                "cores": cores.collect::<Vec<Value>>(),
            })
        })
        .collect();
    Ok(json(&json!({ "upstreams": all })))
}

fn describe(core: usize, state: &UpstreamState) -> Value {
    let millis = |ms: f64| (1_000.0 * ms).round() / 1_000.0;
    json!({
        "core": core,
        "rests_for": state.rest.map(|(reason, _)| reason),
        "rest_seconds": state.rest.map(|(_, left)| millis(left)),
        "rtt_ms": state.rtt_ms.map(millis),
        "in_flight": state.in_flight,
        "in_clear": state.is_in_clear,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_down_slow_or_neither() {
        let core = |rest: bool, rtt_ms| UpstreamState {
            upstream: "192.0.2.1:53".into(),
            protocol: "udp",
            rest: rest.then_some(("silence", 3.0)),
            rtt_ms,
            in_flight: 0,
            is_in_clear: false,
        };
        let down = [core(true, Some(5.0)), core(true, None)];
        let half = [core(true, Some(5.0)), core(false, Some(5.0))];
        let late = [core(false, Some(700.0)), core(false, Some(100.0)), core(false, None)];
        let well = [core(false, Some(390.0)), core(false, Some(405.0))];
        let fresh = [core(false, None)];
        let all = [&down[..], &half, &late, &well, &fresh];
        let expected = json!({ "count": 5, "down": 1, "slow": 2 });
        assert_eq!(figures_of(all.into_iter()), expected);
    }

    #[test]
    fn open_metrics_are_for_those_who_name_them() {
        for (accept, format) in [
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::Open,
            ),
            ("application/openmetrics-text", Format::Open),
            ("text/plain", Format::Classic),
            ("*/*", Format::Classic),
            ("application/openmetrics-text;q=0", Format::Classic),
            ("", Format::Classic),
        ] {
            let headers: HeaderMap = [(ACCEPT, accept.parse().unwrap())].into_iter().collect();
            assert_eq!(format_for(&headers), format, "{accept}");
        }
        assert_eq!(format_for(&HeaderMap::new()), Format::Classic);
    }
}
