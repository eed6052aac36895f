// The node: requests, the token, the stream of seconds, and whether there is a connection at all.

const TOKEN_KEY = "heimdall-token";
const REQUEST_MS_MAX = 8000;
// The node tells every second; silence for so long means that it is gone.
const SILENCE_MS_MAX = 5000;
const RETRY_MS = [500, 1000, 2000, 4000];

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Some browsers have no storage, or forbid it: then the token lives as long as the page.
const safe = {
  token: null,
  read() {
    try { return sessionStorage.getItem(TOKEN_KEY) ?? this.token; } catch { return this.token; }
  },
  write(token) {
    this.token = token;
    try {
      if (token) sessionStorage.setItem(TOKEN_KEY, token);
      else sessionStorage.removeItem(TOKEN_KEY);
    } catch { /* Kept in memory. */ }
  },
};

const listeners = { second: [], link: [], access: [] };
const on = (what, listener) => listeners[what].push(listener);
const tellAll = (what, value) => listeners[what].forEach((listener) => listener(value));

function headers(token = safe.read()) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function reasonOf(reply) {
  try { return (await reply.json()).error || reply.statusText; } catch { return reply.statusText || `status ${reply.status}`; }
}

async function request(path, options = {}) {
  const reply = await fetch(`api/v1/${path}`, { cache: "no-store", redirect: "error", ...options });
  if (reply.ok) return reply;
  const refusal = new Refused(reply.status, await reasonOf(reply));
  if (reply.status === 401) tellAll("access", { needed: true, why: refusal.message });
  throw refusal;
}

// What the node says to a GET, as an object.
async function ask(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value != null && value !== ""));
  const text = query.size ? `${path}?${query}` : path;
  return (await request(text, { headers: headers(), signal: AbortSignal.timeout(REQUEST_MS_MAX) })).json();
}

// Commands; members without a value are left out.
async function command(path, body = {}) {
  const members = Object.fromEntries(Object.entries(body).filter(([, value]) => value != null && value !== ""));
  const reply = await request(path, {
    method: "POST",
    headers: { ...headers(), "Content-Type": "application/json" },
    body: JSON.stringify(members),
    signal: AbortSignal.timeout(REQUEST_MS_MAX),
  });
  return reply.json();
}

// Whether it will be refused again, until the operator changes something: what asks for it makes room for the reason.
const isLasting = (error) => [401, 403, 404, 409].includes(error.status);

// Why something cannot be shown or done, in a sentence.
function plainly(error) {
  if (!(error instanceof Refused)) return "The node does not answer.";
  switch (error.status) {
    case 401: return "Sign in to see this.";
    case 403: return "For this the node wants a token: set api.token_file (or api.token) in its config, restart it and sign in here.";
    default: return error.message.charAt(0).toUpperCase() + error.message.slice(1);
  }
}

// Calls `action` every so many seconds while the page is seen and the node is there; never twice at a time. It may give the
// seconds until the next time itself: what is refused now will not be granted so soon.
const REFUSED_SECONDS = 30;
const polls = [];
function poll(seconds, action) {
  const one = { isBusy: false, next: 0, seconds, action };
  polls.push(one);
  return () => { one.next = 0; turn(); };
}

let isLinked = false;
function turn() {
  if (!isLinked || document.hidden) return;
  for (const one of polls) {
    if (one.isBusy || Date.now() < one.next) continue;
    one.isBusy = true;
    one.next = Date.now() + 1000 * one.seconds;
    one.action().then((wait) => { if (wait) one.next = Date.now() + 1000 * wait; }, () => {}).finally(() => { one.isBusy = false; });
  }
}
setInterval(turn, 250);
document.addEventListener("visibilitychange", turn);

function setLink(state, detail = "") {
  isLinked = state === "good";
  tellAll("link", { state, detail });
  if (isLinked) {
    for (const one of polls) one.next = 0;
    turn();
  }
}

// Reads seconds until the stream ends. EventSource could not send the token.
async function listen() {
  const breaker = new AbortController();
  let alarm = setTimeout(() => breaker.abort(), SILENCE_MS_MAX);
  try {
    const reply = await request("live", { headers: headers(), signal: breaker.signal });
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let isFirst = true; ; ) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(alarm);
      alarm = setTimeout(() => breaker.abort(), SILENCE_MS_MAX);
      const events = (text + value).split("\n\n");
      text = events.pop();
      if (isFirst) {
        // The history has this second already.
        isFirst = false;
        await tellHistory();
        setLink("good");
        continue;
      }
      for (const event of events) {
        if (event.startsWith("data: ")) tellAll("second", { second: JSON.parse(event.slice(6)) });
      }
    }
  } finally {
    clearTimeout(alarm);
    breaker.abort();
  }
}

async function tellHistory() {
  const { seconds } = await ask("history");
  tellAll("second", { history: seconds });
}

let wake = () => {};
const pause = (ms) => new Promise((resolve) => { const timer = setTimeout(resolve, ms); wake = () => { clearTimeout(timer); resolve(); }; });

async function stayLinked() {
  for (let tries = 0; ; ) {
    let refusal = null;
    try { await listen(); } catch (error) { refusal = error instanceof Refused ? error : null; }
    tries = isLinked ? 0 : tries + 1;
    if (refusal?.status === 401) {
      setLink("wait", "");
      await new Promise((resolve) => { wake = resolve; });
      tries = 0;
      continue;
    }
    setLink("bad", refusal ? plainly(refusal) : "");
    await pause(RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]);
  }
}

// Tries a token; it is kept if the node takes it.
async function signIn(token) {
  const reply = await fetch("api/v1/log-level", { cache: "no-store", headers: headers(token), signal: AbortSignal.timeout(REQUEST_MS_MAX) });
  if (!reply.ok) throw new Refused(reply.status, await reasonOf(reply));
  safe.write(token);
  tellAll("access", { needed: false });
  wake();
}
