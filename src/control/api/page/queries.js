// The query log: newest first, searched, in pages, with one click to block or allow.

const PAGE = 25;
const search = { text: "", answer: "", since: "" };
let before = null;
let older = null;
let asked = 0;

// An address is a client, `.name` or `*.name` all in and below a name, anything else a part of one.
function meant(text) {
  if (/^\d{1,3}(\.\d{1,3}){3}$/.test(text) || (/^[0-9a-f:.]+$/i.test(text) && text.split(":").length > 2)) return { client: text };
  const below = text.match(/^\*?\.(.+)$/);
  return below ? { under: below[1] } : { name: text };
}

function logRow(query) {
  const [answer, under] = [make("span", { class: "pill" }), make("span", { class: "under" })];
  const button = make("button", { type: "button", class: "small" });
  const { name } = query;
  const node = row([[null, "keep"], [null, "wide first"], [null, "keep"], [null, "wide"], [null, ""], [null, "keep"], [null, "n"], [null, "end"]], (cells, told) => {
    if (!cells[4].firstChild) {
      cells[4].append(answer, under);
      cells[7].append(button);
    }
    say(cells[0], moment(told.time_ms));
    cells[0].title = new Date(told.time_ms).toISOString();
    say(cells[1], name);
    say(cells[2], String(told.type));
    say(cells[3], told.client);
    cells[3].title = [told.transport.toUpperCase(), told.port ? `port ${told.port}` : "", `at ${told.listener}`, told.group ? `group ${told.group}` : ""].filter(Boolean).join(", ");
    answer.dataset.how = told.answer;
    say(answer, told.answer);
    say(under, told.list || "");
    say(cells[5], told.rcode == null ? NONE : String(told.rcode));
    say(cells[6], told.latency_us == null ? "at once" : lasts(Math.max(1, told.latency_us) / 1e6));
    node.tellButton();
  });
  // A ruling of our own on this very name is taken back; else the opposite of what happened is one click away.
  node.tellButton = () => {
    const ruling = rulingOn(name)?.action;
    const isBlocked = ruling ? ruling === "block" : query.answer === "blocked";
    say(button, isBlocked ? "Allow" : "Block");
    button.setAttribute("aria-label", `${button.textContent} ${name}`);
  };
  button.addEventListener("click", () => {
    const choice = $("ruling-for").selectedOptions[0];
    rule(name, button.textContent === "Allow" ? "allow" : "block", false, choice.value, choice.text);
  });
  return node;
}

function retellLog() {
  for (const line of $("log").tBodies[0].children) line.tellButton();
}

async function look() {
  const since = search.since ? Math.floor(Date.now() / 1000) - Number(search.since) : null;
  const turn = ++asked;
  const found = await ask("queries", { ...meant(search.text), answer: search.answer, since, before, limit: PAGE });
  // Another page was asked for meanwhile.
  if (turn !== asked) return;
  const body = $("log").tBodies[0];
  const wasEmpty = !body.firstElementChild;
  const known = new Set([...body.children].map((line) => line.dataset.key));
  keyed(body, found.queries, (query) => query.id, logRow);
  for (const line of body.children) line.classList.toggle("fresh", !wasEmpty && before === null && !known.has(line.dataset.key));
  older = found.next;
  $("older").disabled = older == null;
  $("newest").disabled = before === null;
  show($("log"), found.queries.length > 0);
  show($("log-empty"), found.queries.length === 0);
  say($("log-empty"), search.text || search.answer || search.since ? "Nothing found." : "No query so far.");
}

async function lookAndTell() {
  try {
    await look();
    for (const id of ["queries-body", "follow-label"]) show($(id), true);
    notice($("queries-notice"), "");
    notice($("search-error"), "");
  } catch (error) {
    // What is wrong with the search stands beside it; what is wrong with the log takes its place.
    if (!isLasting(error)) {
      notice($("search-error"), plainly(error));
      return null;
    }
    for (const id of ["queries-body", "follow-label"]) show($(id), false);
    notice($("queries-notice"), error.status === 409 ? `The query log is off: ${error.message}` : plainly(error));
    return REFUSED_SECONDS;
  }
}

// Whoever reads an older page, or has switched it off, is not pushed on.
poll(2, async () => {
  if (!$("queries-body").hidden && (before !== null || !$("follow").checked)) return null;
  return lookAndTell();
});

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  Object.assign(search, { text: $("search-text").value.trim(), answer: $("search-answer").value, since: $("search-since").value });
  before = null;
  lookAndTell();
});
for (const id of ["search-answer", "search-since"]) $(id).addEventListener("change", () => $("search").requestSubmit());
$("search-text").addEventListener("search", () => $("search").requestSubmit());
$("older").addEventListener("click", () => { before = older; lookAndTell(); });
$("newest").addEventListener("click", () => { before = null; lookAndTell(); });
