// Lists, single names and the pause: what is blocked, and the commands that change it.

const DURATIONS = [["", "for good"], ["10m", "10 minutes"], ["1h", "1 hour"], ["24h", "1 day"]];
for (const id of ["override-for", "ruling-for"]) {
  $(id).append(...DURATIONS.map(([value, text]) => make("option", { value }, text)));
}

let overrides = new Map();
let pausedUntil = null;

const rulingOn = (name) => overrides.get(bare(name).toLowerCase());

// What is to be known of a command that was carried out.
function reservation({ local = [], late = 0 }) {
  if (local.length > 0) return ", but the node's own data answers it before";
  return late > 0 ? `; ${late === 1 ? "one core follows" : `${late} cores follow`} later` : "";
}

// Carries out a command, says what came of it, looks anew, and tells whether it was done.
async function carryOut(action, done, undo = null) {
  let isDone = true;
  try {
    toast(done + reservation(await action()), { undo });
  } catch (error) {
    isDone = false;
    toast(plainly(error), { tone: "bad" });
  }
  lookAtLists();
  return isDone;
}

const put = (name, { action, subtree, span }) => command("overrides/add", { name, action, subtree, for: span });
const take = (name) => command("overrides/remove", { name });

// What brings `ruling` back for as long as it had left.
function restore(name, ruling) {
  if (!ruling) return () => take(name);
  const left = ruling.expires_at == null ? null : Math.max(1, Math.round(ruling.expires_at - Date.now() / 1000));
  return () => put(name, { ...ruling, span: left == null ? "" : left < 3600 ? `${left}s` : `${Math.round(left / 60)}m` });
}

// Blocks or allows one name, with a way back.
function rule(name, action, subtree, span, spanText) {
  const before = rulingOn(name);
  const undo = () => carryOut(restore(name, before), `${bare(name)}: as before`);
  const what = action === "block" ? "blocked" : "allowed";
  return carryOut(() => put(name, { action, subtree, span }), `${bare(name)} is ${what} ${spanText}`, undo);
}

function unrule(name) {
  const before = rulingOn(name);
  const undo = () => carryOut(restore(name, before), `${bare(name)}: as before`);
  return carryOut(() => take(name), `${bare(name)} is left to the lists again`, undo);
}

$("override-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [name, choice] = [$("override-name").value.trim(), $("override-for").selectedOptions[0]];
  const isDone = await rule(name, $("override-action").value, $("override-subtree").checked, choice.value, choice.text);
  if (!isDone) return;
  $("override-name").value = "";
  // Each time anew: with what is below, a slip takes a whole subtree.
  $("override-subtree").checked = false;
});

const LIST_TONES = { "in force": "good", missing: "bad" };

function listRow(list) {
  const toggle = make("input", { type: "checkbox", class: "switch", role: "switch", "aria-label": `${list.name} counts` });
  const refresh = make("button", { type: "button", class: "small", "aria-label": `Read ${list.name} anew` }, "Refresh");
  const [title, source, state, detail] = [make("b"), make("span", { class: "under" }), make("span", { class: "pill" }), make("span", { class: "under" })];
  toggle.addEventListener("change", () => {
    const isOn = toggle.checked;
    const undo = () => carryOut(() => command(`lists/${isOn ? "disable" : "enable"}`, { list: list.name }), `${list.name}: as before`);
    carryOut(() => command(`lists/${isOn ? "enable" : "disable"}`, { list: list.name }), `${list.name} is switched ${isOn ? "on" : "off"}`, undo);
  });
  refresh.addEventListener("click", () => carryOut(() => command("lists/refresh", { list: list.name }), `${list.name} is read anew`));
  return row([[null, "wide first"], [null, "keep"], ["rules", "n"], ["hits", "n"], [null, ""], ["counts", "keep"], [null, "end"]], (cells, told) => {
    if (!cells[0].firstChild) {
      cells[0].append(title, source);
      cells[4].append(state, detail);
      cells[5].append(toggle);
      cells[6].append(refresh);
    }
    say(title, told.name);
    say(source, told.source || "");
    say(cells[1], `${told.action}s`);
    say(cells[2], count(told.rules));
    say(cells[3], count(told.hits));
    state.dataset.state = LIST_TONES[told.state] || "wait";
    say(state, told.enabled ? told.state : "switched off");
    const back = !told.enabled && told.enabled_again_at != null ? `back in ${until(told.enabled_again_at)}` : null;
    say(detail, told.error || back || (told.loaded_at == null ? "" : `read ${ago(told.loaded_at)}`));
    toggle.checked = told.enabled;
  });
}

function chip(override) {
  const [kind, name, left] = [make("span", { class: "pill" }), make("span", {}), make("span", { class: "muted small" })];
  const remove = make("button", { type: "button", class: "small", "aria-label": `Remove the ruling on ${override.name}`, onclick: () => unrule(override.name) }, "Remove");
  const node = make("li", {}, kind, name, left, remove);
  node.tell = (told) => {
    kind.dataset.how = told.action === "block" ? "blocked" : "cache";
    say(kind, told.action === "block" ? "blocked" : "allowed");
    say(name, told.name + (told.subtree ? " and below" : ""));
    say(left, told.expires_at == null ? "for good" : `${until(told.expires_at)} left`);
  };
  return node;
}

const isOver = () => pausedUntil != null && pausedUntil <= Date.now() / 1000;

function tellPause() {
  const isPaused = pausedUntil !== null && !isOver();
  show($("pause-state"), isPaused);
  $("pause-state").dataset.state = "wait";
  say($("pause-state"), pausedUntil === Infinity ? "Paused" : `Paused, ${countdown(pausedUntil - Date.now() / 1000)} left`);
  for (const id of ["pause", "pause-for"]) show($(id), !isPaused);
  show($("resume"), isPaused);
}

setInterval(() => {
  if (pausedUntil === null) return;
  tellPause();
  if (isOver()) {
    pausedUntil = null;
    lookAtLists();
  }
}, 500);

$("pause").addEventListener("click", () => {
  const choice = $("pause-for").selectedOptions[0];
  carryOut(() => command("blocking/pause", { for: choice.value }), `Nothing is blocked for ${choice.text}`, () => carryOut(() => command("blocking/resume"), "Blocking goes on"));
});
$("resume").addEventListener("click", () => carryOut(() => command("blocking/resume"), "Blocking goes on"));

const lookAtLists = poll(3, async () => {
  try {
    const told = await ask("lists");
    overrides = new Map(told.overrides.map((one) => [one.name, one]));
    pausedUntil = told.paused ? told.paused_until ?? Infinity : null;
    keyed($("lists").tBodies[0], told.lists, (list) => list.name, listRow);
    keyed($("overrides"), told.overrides, (one) => one.name, chip);
    show($("lists"), told.lists.length > 0);
    show($("lists-empty"), told.lists.length === 0);
    show($("overrides-empty"), told.overrides.length === 0);
    show($("unkept"), !told.kept);
    show($("blocking-body"), true);
    show($("pause-tools"), true);
    notice($("blocking-notice"), "");
    tellPause();
    retellLog();
  } catch (error) {
    if (!isLasting(error)) return null;
    for (const id of ["blocking-body", "pause-tools", "pause-state"]) show($(id), false);
    notice($("blocking-notice"), plainly(error));
    return REFUSED_SECONDS;
  }
});

const TOP_SHOWN = 10;

poll(5, async () => {
  try {
    for (const [of, tone] of [["names", "hits"], ["clients", "other"], ["blocked", "blocked"]]) {
      const { top } = await ask("top", { of, limit: TOP_SHOWN });
      const most = Math.max(1, ...top.map((one) => one.count));
      const lines = top.map((one) => ({ name: one.key, value: count(one.count), beside: one.error ? `−${count(one.error)}` : "", part: one.count / most, tone }));
      keyed($(`top-${of}`), lines, (one) => one.name, bar);
      if (!lines.length) $(`top-${of}`).replaceChildren(Object.assign(make("li", { class: "muted" }, "None so far."), { tell() {} }));
    }
    show($("top-body"), true);
    show($("top-off"), false);
  } catch (error) {
    if (!isLasting(error)) return null;
    show($("top-body"), false);
    show($("top-off"), true);
    notice($("top-notice"), error.status === 409 ? `What is asked most is not counted: ${error.message}` : plainly(error));
    return REFUSED_SECONDS;
  }
});
