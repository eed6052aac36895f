// Two charts drawn by hand: areas that add up, and medians with a band up to their 99th percentile.

const SPAN = 300;
const LEFT = 44;
const BOTTOM = 20;
const TOP = 8;

// The next round number.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

// What both charts share: frame, time axis, tip under the pointer.
class Chart {
  constructor(host, label) {
    this.host = host;
    this.label = label;
    this.seconds = [];
    this.at = null;
    this.svg = draw("svg", { role: "img", "aria-label": label });
    this.tip = make("div", { class: "tip", hidden: true });
    host.append(this.svg, this.tip);
    new ResizeObserver(() => this.paint()).observe(host);
    host.addEventListener("pointermove", (event) => {
      const x = event.clientX - host.getBoundingClientRect().left;
      this.at = Math.round(((this.right - x) / (this.right - LEFT)) * (SPAN - 1));
      this.paint();
    });
    host.addEventListener("pointerleave", () => { this.at = null; this.paint(); });
  }

  show(seconds) {
    this.seconds = seconds;
    this.paint();
  }

  // Where the second stands that was `age` seconds ago.
  x(age) {
    return this.right - (age / (SPAN - 1)) * (this.right - LEFT);
  }

  paint() {
    const [width, height] = [this.host.clientWidth, this.host.clientHeight];
    if (!width) return;
    [this.right, this.low] = [width - 2, height - BOTTOM];
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const parts = [...this.rules(), ...this.marks()];
    const every = width < 420 ? 120 : 60;
    for (let age = 0; age < SPAN; age += every) {
      const anchor = age ? "middle" : "end";
      parts.push(draw("text", { x: this.x(age), y: height - 4, "text-anchor": anchor }, age ? `−${age / 60} min` : "now"));
    }
    this.paintTip(parts, width);
    this.svg.replaceChildren(...parts);
  }

  paintTip(parts, width) {
    const last = this.seconds.length - 1;
    const isShown = this.at != null && this.at >= 0 && this.at <= last;
    show(this.tip, isShown);
    if (!isShown) return;
    const x = this.x(this.at);
    parts.push(draw("line", { class: "cross", x1: x, x2: x, y1: TOP, y2: this.low }));
    const lines = this.words(this.seconds[last - this.at]);
    this.tip.replaceChildren(
      make("div", { class: "muted" }, this.at ? `${span(this.at)} ago` : "now"),
      ...lines.map(([tone, name, value]) => make("div", {}, make("span", { class: `k ${tone}` }, name), make("b", {}, value))),
    );
    const own = this.tip.offsetWidth;
    this.tip.style.left = `${Math.min(Math.max(0, x > width / 2 ? x - own - 10 : x + 10), width - own)}px`;
  }

  rule(y, text) {
    return [
      draw("line", { class: "rule", x1: LEFT, x2: this.right, y1: y, y2: y }),
      draw("text", { x: LEFT - 7, y: y + 4, "text-anchor": "end" }, text),
    ];
  }

  // The outline between two rows of heights; `null` parts it.
  area(tone, low, high) {
    const last = this.seconds.length - 1;
    const point = (height, place) => `${this.x(last - place).toFixed(1)} ${height.toFixed(1)}`;
    const parts = [];
    for (let from = 0; from <= last; from++) {
      if (high[from] == null) continue;
      let to = from;
      while (to < last && high[to + 1] != null) to++;
      const there = high.slice(from, to + 1).map((height, step) => point(height, from + step));
      const back = low.slice(from, to + 1).map((height, step) => point(height, from + step)).reverse();
      parts.push(`M${there.join("L")}L${back.join("L")}Z`);
      from = to;
    }
    return draw("path", { class: tone, d: parts.join("") });
  }
}

class Stack extends Chart {
  static KINDS = [["hits", "hits"], ["misses", "misses"], ["blocked", "blocked"], ["other", "other"]];

  parts(second) {
    const per = (value) => value / second.seconds;
    const [hits, misses, blocked] = [per(second.hits), per(second.misses), per(second.blocked)];
    return [hits, misses, blocked, Math.max(0, per(second.queries) - hits - misses - blocked)];
  }

  words(second) {
    const parts = this.parts(second);
    return [["", "all", brief(second.queries_per_second)], ...Stack.KINDS.map(([tone, name], place) => [tone, name, brief(parts[place])])];
  }

  *rules() {
    this.stacks = this.seconds.map((second) => this.parts(second));
    const most = Math.max(4, ...this.stacks.map((parts) => parts.reduce((sum, part) => sum + part, 0)));
    this.most = roundUp(most);
    for (const share of [0, 0.5, 1]) yield* this.rule(this.y(share * this.most), tick(share * this.most));
  }

  y(value) {
    return this.low - (value / this.most) * (this.low - TOP);
  }

  *marks() {
    let low = this.seconds.map(() => this.y(0));
    const sums = this.seconds.map(() => 0);
    for (const [place, [tone]] of Stack.KINDS.entries()) {
      const high = this.stacks.map((parts, second) => this.y((sums[second] += parts[place])));
      yield this.area(`area ${tone}`, low, high);
      low = high;
    }
    const last = this.seconds.at(-1);
    if (last) this.svg.setAttribute("aria-label", `${this.label}: ${brief(last.queries_per_second)} now`);
  }
}

// Logarithmic: hits take microseconds, misses milliseconds. The axis lies below all that is drawn.
class Bands extends Chart {
  words(second) {
    return ["hits", "misses"].flatMap((tone) => {
      const told = second[tone === "hits" ? "hit_seconds" : "miss_seconds"];
      return [[tone, "median", lasts(told.p50)], [tone, "p95", lasts(told.p95)], [tone, "p99", lasts(told.p99)]];
    });
  }

  *rules() {
    const all = this.seconds.flatMap(({ hit_seconds: hit, miss_seconds: miss }) => [hit.p50, hit.p99, miss.p50, miss.p99]);
    const known = all.filter((value) => value > 0);
    this.first = Math.min(-6, Math.ceil(Math.log10(0.99 * Math.min(...known))) - 1);
    this.last = Math.ceil(Math.log10(Math.max(1e-1, ...known)));
    for (let power = this.first; power <= this.last; power++) yield* this.rule(this.y(10 ** power), lasts(10 ** power));
  }

  y(value) {
    const share = (Math.log10(value) - this.first) / (this.last - this.first);
    return this.low - share * (this.low - TOP);
  }

  *marks() {
    const at = (value) => (value > 0 ? this.y(value) : null);
    for (const [tone, name] of [["misses", "miss_seconds"], ["hits", "hit_seconds"]]) {
      const middle = this.seconds.map((second) => at(second[name].p50));
      const high = this.seconds.map((second, place) => (middle[place] == null ? null : at(second[name].p99) ?? TOP));
      yield this.area(`band ${tone}`, middle, high);
      yield this.area(`trace ${tone}`, middle, middle);
    }
    const last = this.seconds.at(-1);
    if (last) this.svg.setAttribute("aria-label", `${this.label}: hits ${lasts(last.hit_seconds.p50)}, misses ${lasts(last.miss_seconds.p50)} in the median`);
  }
}
