// Figures: tiles, charts, cores, cache, answers, upstreams. None of them tells of a client.

// Tiles tell of the last ten seconds, so that they can be read.
const CALM = 10;
let seconds = [];
let cacheBytesMax = 0;

const charts = [new Stack($("chart-queries"), "Queries per second"), new Bands($("chart-latency"), "Time to answer")];

on("second", ({ history, second }) => {
  if (history) seconds = history;
  else if (second) seconds.push(second);
  seconds = seconds.slice(-SPAN);
  tellTiles();
  for (const chart of charts) chart.show(seconds);
});

function tellTime(id, told, tail) {
  const [number, unit] = lasting(told?.p50);
  // What is told are bounds of a histogram.
  $(id).replaceChildren(...(unit ? [make("small", {}, "≤ "), number, make("small", {}, unit)] : [number]));
  say($(tail), told?.p50 == null ? "none of late" : `p95 ${lasts(told.p95)} · p99 ${told.p99 == null ? "beyond 10 s" : lasts(told.p99)}`);
}

function tellTiles() {
  const last = seconds.at(-1);
  if (!last) return;
  const calm = seconds.slice(-CALM);
  const sum = (part) => calm.reduce((all, one) => all + one[part], 0);
  const newest = (part) => calm.findLast((one) => one[part].p50 != null)?.[part];
  say($("qps"), brief(last.queries_per_second));
  say($("qps-sub"), `peak ${brief(Math.max(...seconds.map((one) => one.queries_per_second)))} in ${span(seconds.length)}`);
  const asked = sum("hits") + sum("misses");
  say($("hit-rate"), percent(asked ? sum("hits") / asked : null));
  say($("hit-rate-sub"), sum("stale") ? `${count(sum("stale"))} stale in 10 s` : "of the last 10 s");
  tellTime("hit-p50", newest("hit_seconds"), "hit-tail");
  tellTime("miss-p50", newest("miss_seconds"), "miss-tail");
  const queries = sum("queries");
  say($("blocked"), percent(queries ? sum("blocked") / queries : null));
  say($("blocked-sub"), `${count(sum("blocked"))} in 10 s`);
  say($("entries"), brief(last.entries));
  say($("entries-sub"), cacheBytesMax ? `${size(last.bytes)} of ${size(cacheBytesMax)}` : size(last.bytes));
}

function facts(list, lines) {
  keyed(list, lines.flatMap(([name, value]) => [{ tag: "dt", key: name, text: name }, { tag: "dd", key: `=${name}`, text: value }]), (item) => item.key, (item) => {
    const node = make(item.tag);
    node.tell = (told) => say(node, told.text);
    return node;
  });
}

poll(2, async () => {
  const { recent, total, responses, cores } = await ask("stats");
  const rates = recent.cores;
  const most = Math.max(1, ...rates);
  say($("imbalance"), recent.imbalance == null ? "no queries of late" : cores.length === 1 ? "one core" : `busiest ${recent.imbalance.toFixed(2)} × the mean`);
  keyed($("cores"), cores.map((core, place) => ({
    key: core.core,
    name: `Core ${core.core}`,
    value: `${brief(rates[place])} q/s`,
    beside: `${percent(core.hit_rate)} hits${core.kernel_drops ? ` · ${count(core.kernel_drops)} lost` : ""}`,
    part: rates[place] / most,
  })), (core) => core.key, bar);
  const part = cacheBytesMax ? total.bytes / cacheBytesMax : 0;
  $("cache-meter").firstElementChild.style.setProperty("--w", `${(100 * part).toFixed(2)}%`);
  $("cache-meter").setAttribute("aria-label", `Cache: ${percent(part)} full`);
  say($("cache-fill"), cacheBytesMax ? `${percent(part)} of ${size(cacheBytesMax)}` : size(total.bytes));
  facts($("cache-facts"), [
    ["Entries", count(total.entries)],
    ["Evicted before their time", count(total.evictions)],
    ["Answered stale", count(total.stale)],
    ["Refreshed ahead", count(total.refreshes)],
    ["Being resolved", count(total.in_flight)],
    ["Dropped by the kernel", count(total.kernel_drops)],
  ]);
  const codes = Object.entries(responses).filter(([, number]) => number > 0).sort((one, other) => other[1] - one[1]);
  const all = codes.reduce((sum, [, number]) => sum + number, 0);
  const tones = { NOERROR: "hits", NXDOMAIN: "other", SERVFAIL: "blocked", REFUSED: "misses" };
  keyed($("answers"), codes.map(([code, number]) => ({ name: code, value: count(number), beside: percent(number / all), part: number / all, tone: tones[code] || "other" })), (code) => code.name, bar);
});

poll(10, async () => {
  const status = await ask("status");
  cacheBytesMax = status.cache_bytes_max;
  const warnings = [...status.fallbacks, ...(status.warnings || [])];
  show($("warnings"), warnings.length > 0);
  keyed($("warnings"), warnings, (text) => text, () => { const node = make("p"); node.tell = (text) => say(node, text); return node; });
  say($("identity"), `${location.host} · version ${status.version} · up ${span(status.uptime_seconds)}`);
  $("identity").title = $("identity").textContent;
  const switched = Object.entries(status.optimizations).filter(([, isOn]) => !isOn).map(([name]) => name);
  say($("foot"), `Serves ${status.listen.join(", ")} on ${status.cores.length} core${status.cores.length === 1 ? "" : "s"} (CPU ${status.cores.map((core) => core.cpu).join(", ")}) by ${status.io}. Memory: ${status.memory}. Log level: ${status.log_level}.${switched.length ? ` Switched off: ${switched.join(", ")}.` : ""}`);
});

const REASONS = { silence: "silent", failures: "failing" };

function tellUpstream(cells, server) {
  const resting = server.cores.filter((core) => core.rests_for != null);
  const rtts = server.cores.map((core) => core.rtt_ms).filter((ms) => ms != null);
  const [name, state, rtt, waiting, useful, failed, late, reuse] = cells;
  say(name, server.upstream);
  if (!state.firstChild) state.append(make("span", { class: "pill" }));
  const tone = resting.length === 0 ? (rtts.length ? "good" : "wait") : resting.length < server.cores.length ? "wait" : "bad";
  state.firstChild.dataset.state = tone;
  const longest = Math.max(0, ...resting.map((core) => core.rest_seconds));
  const why = [...new Set(resting.map((core) => REASONS[core.rests_for] || core.rests_for))].join(", ");
  const clear = server.cores.some((core) => core.in_clear) ? ", in clear" : "";
  say(state.firstChild, (resting.length ? `${why}, rests ${span(Math.ceil(longest))}` : rtts.length ? "answers" : "not asked yet") + clear);
  say(rtt, rtts.length ? lasts(rtts.reduce((sum, ms) => sum + ms, 0) / rtts.length / 1000) : NONE);
  say(waiting, count(server.cores.reduce((sum, core) => sum + core.in_flight, 0)));
  say(useful, count(server.useful));
  say(failed, count(server.failed));
  say(late, count(server.late));
  say(reuse, server.stream_queries ? percent(server.stream_queries_reusing / server.stream_queries) : NONE);
}

const UPSTREAM_COLUMNS = [[null, "wide first"], [null, "keep"], ["usual", "n"], ["waiting", "n"], ["useful", "n"], ["failed", "n"], ["in vain", "n"], ["reused", "n"]];

poll(3, async () => {
  try {
    const { upstreams } = await ask("upstreams");
    keyed($("upstreams-table").tBodies[0], upstreams, (server) => server.upstream, () => row(UPSTREAM_COLUMNS, tellUpstream));
    const down = upstreams.filter((server) => server.cores.every((core) => core.rests_for != null)).length;
    say($("upstreams-sum"), `${upstreams.length - down} of ${upstreams.length} in use`);
    notice($("upstreams-notice"), upstreams.length ? "" : "No upstream in the config: [forward] names them.");
  } catch (error) {
    notice($("upstreams-notice"), plainly(error));
    return REFUSED_SECONDS;
  }
});
