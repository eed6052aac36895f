// Numbers and times as people read them.

const NONE = "–";
const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

function count(value) {
  return value == null ? NONE : plain.format(value);
}

// A number in few characters: 12,345 stays, 1,234,567 becomes 1.23 M.
function brief(value) {
  if (value == null) return NONE;
  for (const [unit, size] of [["G", 1e9], ["M", 1e6]]) {
    if (value >= size) return `${(value / size).toPrecision(3)} ${unit}`;
  }
  return value < 10 ? fine.format(value) : plain.format(value);
}

// The same for an axis: 20 k.
function tick(value) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= size) return `${fine.format(value / size)} ${unit}`;
  }
  return fine.format(value);
}

function percent(share) {
  if (share == null) return NONE;
  const value = 100 * share;
  if (value > 0 && value < 0.05) return "< 0.1 %";
  return `${value > 0 && value < 99.95 ? value.toFixed(1) : value.toFixed(0)} %`;
}

function size(bytes) {
  if (bytes == null) return NONE;
  let [value, unit] = [bytes, "B"];
  for (const next of ["KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1024) break;
    [value, unit] = [value / 1024, next];
  }
  return `${unit === "B" || value >= 100 ? value.toFixed(0) : value.toPrecision(value >= 10 ? 3 : 2)} ${unit}`;
}

// Seconds as [number, unit], from nanoseconds on.
function lasting(seconds) {
  if (seconds == null) return [NONE, ""];
  for (const [unit, per] of [["s", 1], ["ms", 1e3], ["µs", 1e6]]) {
    const value = seconds * per;
    if (value >= 1) return [value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(2))), unit];
  }
  return [String(Math.round(seconds * 1e9)), "ns"];
}

const lasts = (seconds) => lasting(seconds).join("\u00a0").trim();

// A span of whole seconds: 3 d 4 h, 5 min 6 s.
function span(seconds) {
  let left = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [unit, per] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    const whole = Math.floor(left / per);
    left -= whole * per;
    if (whole || parts.length) parts.push(whole ? `${whole} ${unit}` : "");
    if (parts.length === 2) break;
  }
  return parts.filter(Boolean).join(" ") || "0 s";
}

// A countdown: 9:58, 1:02:03.
function countdown(seconds) {
  const left = Math.max(0, Math.floor(seconds));
  const two = (value) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(left / 3600), Math.floor(left / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(left % 60)}` : `${minutes}:${two(left % 60)}`;
}

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dayAndClock = new Intl.DateTimeFormat([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

function moment(ms) {
  const date = new Date(ms);
  return (date.toDateString() === new Date().toDateString() ? clock : dayAndClock).format(date);
}

const ago = (seconds) => `${span(Date.now() / 1000 - seconds)} ago`;
const until = (seconds) => span(seconds - Date.now() / 1000);

// A name as somebody types it, without the dot at its end: as the node tells names, but for capitals.
const bare = (name) => (name.length > 1 && name.endsWith(".") && !name.endsWith("\\.") ? name.slice(0, -1) : name);
