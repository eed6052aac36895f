// The dashboard of the real binary, used as an operator uses it, in Chromium: what it shows is what dig sees, and what it commands
// is what dig gets.

import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, test } from "node:test";

import { ensurePrograms, eventually, launch, Node, open, Place, startNsd, TOKEN } from "./support.mjs";

const HOSTILE = "<img src=x onerror=alert(1)>";

let place;
let upstream;
let node;
let browser;

before(async () => {
  ensurePrograms();
  place = new Place();
  upstream = await startNsd(place);
  const list = place.write("ads.txt", "||ads.test^\n");
  const config = `[api]
token = "${TOKEN}"
[query_log]
path = "${place.path}/queries.sqlite"
top = 100
[[list]]
name = "ads"
file = "${list}"
answer = "nxdomain"
`;
  node = await Node.start(place, config, upstream);
  await eventually("the upstream answers", async () => (await node.dig("first.test")).addresses.length);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await place?.close();
});

/** Runs `use` with a dashboard that must neither complain nor ask anybody else. */
function shows(what, use, options = {}) {
  test(what, async () => {
    const { page, wrongs, close } = await open(browser, options.node?.() ?? node, options);
    try {
      await use(page);
      assert.deepEqual(wrongs, []);
    } finally {
      await close();
    }
  });
}

const text = (page, selector) => page.locator(selector).innerText();
const isLive = (page) => page.locator("#link", { hasText: "Live" }).waitFor();
const number = async (page, selector) => Number((await text(page, selector)).replace(/[^0-9.]/g, ""));
const line = (page, name) => page.locator("#log tbody tr").filter({ has: page.getByText(name, { exact: true }) }).first();

async function addresses(name, expected) {
  await eventually(`${name} answers ${expected ? "" : "nothing"}`, async () => {
    const seen = await node.dig(name);
    return (seen.addresses.includes("192.0.2.80")) === expected;
  });
}

shows("figures move while queries come", async (page) => {
  await isLive(page);
  const file = place.write("load", Array.from({ length: 40 }, (_, each) => `host${each}.load.test A`).join("\n") + "\n");
  const load = node.load(file, 2000, 6);
  await eventually("queries per second", async () => (await number(page, "#qps")) > 500);
  await eventually("a median of hits", async () => /[0-9]/.test(await text(page, "#hit-p50")));
  await load;
  await eventually("entries", async () => (await number(page, "#entries")) >= 40);
  await eventually("a median of misses", async () => /[0-9]/.test(await text(page, "#miss-p50")));
  await eventually("a hit rate", async () => (await number(page, "#hit-rate")) > 90);
  for (const chart of ["#chart-queries", "#chart-latency"]) {
    assert.match(await page.locator(`${chart} path.hits`).first().getAttribute("d"), /^M/, chart);
  }
  await page.locator("#cores li", { hasText: "Core 0" }).waitFor();
  await page.locator("#answers li", { hasText: "NOERROR" }).waitFor();
  const server = page.locator("#upstreams-table tbody tr", { hasText: upstream });
  await server.getByText("answers").waitFor();
  await eventually("useful answers", async () => (await server.locator("td").nth(4).innerText()).replace(",", "") >= 40);
  await page.locator("#top-names li", { hasText: "load.test" }).first().waitFor();
  await page.locator("#chart-queries").hover({ position: { x: 400, y: 80 } });
  await page.locator("#chart-queries .tip").waitFor({ state: "attached" });
  assert.match(await text(page, "#identity"), /version \d.*up /);
});

shows("queries show up in the log, and a search finds them", async (page) => {
  for (const name of ["alpha.find.test", "beta.find.test", "gamma.other.test"]) await node.dig(name);
  await line(page, "alpha.find.test").waitFor();
  const find = async (text, names) => {
    await page.fill("#search-text", text);
    await page.press("#search-text", "Enter");
    await eventually(`${text} finds ${names}`, async () => {
      const found = await page.locator("#log tbody td:nth-child(2)").allInnerTexts();
      return JSON.stringify([...new Set(found)].sort()) === JSON.stringify(names);
    });
  };
  await find("alpha.find", ["alpha.find.test"]);
  await find(".find.test", ["alpha.find.test", "beta.find.test"]);
  await find("nobody-asked-for-this", []);
  await page.locator("#log-empty", { hasText: "Nothing found" }).waitFor();
  await find("gamma", ["gamma.other.test"]);
  await page.selectOption("#search-answer", "blocked");
  await page.locator("#log-empty").waitFor();
});

shows("the log has pages", async (page) => {
  for (let each = 0; each < 30; each++) await node.dig(`page${each}.pages.test`);
  await page.fill("#search-text", ".pages.test");
  await page.press("#search-text", "Enter");
  await line(page, "page29.pages.test").waitFor();
  await eventually("a full page", async () => (await page.locator("#log tbody tr").count()) === 25);
  await page.click("#older");
  await eventually("the rest", async () => (await page.locator("#log tbody tr").count()) === 5);
  await line(page, "page0.pages.test").waitFor();
  await page.click("#newest");
  await line(page, "page29.pages.test").waitFor();
});

shows("one click blocks, one more takes it back", async (page) => {
  await addresses("click.test", true);
  await page.fill("#search-text", "click.test");
  await page.press("#search-text", "Enter");
  await line(page, "click.test").getByRole("button", { name: "Block click.test" }).click();
  await page.locator(".toast", { hasText: "click.test is blocked for good" }).waitFor();
  await addresses("click.test", false);
  await page.locator("#overrides li", { hasText: "click.test" }).waitFor();
  await page.locator(".toast").getByRole("button", { name: "Undo" }).click();
  await addresses("click.test", true);
  await page.locator("#overrides li", { hasText: "click.test" }).waitFor({ state: "detached" });
  // For a while, and removed by hand.
  await page.selectOption("#ruling-for", "10m");
  await line(page, "click.test").getByRole("button", { name: "Block click.test" }).click();
  await addresses("click.test", false);
  const chip = page.locator("#overrides li", { hasText: "click.test" });
  await chip.getByText(/\d+ (min|s) .*left/).waitFor();
  await chip.getByRole("button").click();
  await addresses("click.test", true);
});

shows("one click allows what a list blocks, and lists can be switched", async (page) => {
  await addresses("x.ads.test", false);
  await page.fill("#search-text", "x.ads.test");
  await page.press("#search-text", "Enter");
  await line(page, "x.ads.test").getByRole("button", { name: "Allow x.ads.test" }).click();
  await addresses("x.ads.test", true);
  await page.locator("#overrides li", { hasText: "allowed" }).getByRole("button", { name: "Remove" }).click();
  await addresses("x.ads.test", false);
  const list = page.locator("#lists tbody tr", { hasText: "ads" });
  assert.equal(await list.locator("td").nth(2).innerText(), "1");
  await list.getByRole("switch").click();
  await addresses("x.ads.test", true);
  await list.getByText("switched off").waitFor();
  await list.getByRole("switch").click();
  await addresses("x.ads.test", false);
  await list.getByRole("button", { name: "Read ads anew" }).click();
  await page.locator(".toast", { hasText: "ads is read anew" }).waitFor();
});

shows("names are blocked by hand, with what is below", async (page) => {
  await page.locator("#override-name").fill("hand.test");
  await page.locator("#override-subtree").check();
  await page.getByRole("button", { name: "Add" }).click();
  await addresses("deep.below.hand.test", false);
  await page.locator("#overrides li", { hasText: "hand.test and below" }).getByRole("button").click();
  await addresses("deep.below.hand.test", true);
  await page.locator("#override-name").fill("no..name");
  await page.getByRole("button", { name: "Add" }).click();
  await page.locator(".toast[data-tone=bad]", { hasText: "is no domain name" }).waitFor();
}, { tolerate: /400/ });

shows("what is below is blocked only where that is ticked", async (page) => {
  const tick = page.locator("#override-subtree");
  await page.locator("#blocking-body").waitFor();
  assert.equal(await tick.isChecked(), false);
  await page.locator("#override-name").fill("alone.test");
  await page.getByRole("button", { name: "Add" }).click();
  await addresses("alone.test", false);
  await addresses("below.alone.test", true);
  assert.equal(await page.locator("#overrides li", { hasText: "and below" }).count(), 0);
  await tick.check();
  await page.locator("#override-name").fill("alone.test");
  await page.getByRole("button", { name: "Add" }).click();
  await addresses("below.alone.test", false);
  // One tick is for one name.
  await eventually("the tick is gone", async () => !(await tick.isChecked()));
  await page.locator("#overrides li", { hasText: "alone.test and below" }).getByRole("button").click();
  await addresses("below.alone.test", true);
});

for (const seconds of [1e-6, 2.5e-6, 1e-5]) {
  shows(`hits of ${seconds * 1e6} microseconds lie above the axis`, async (page) => {
    // What the node tells, but for how long hits take: that is the machine's affair.
    await page.route("**/api/v1/history", async (route) => {
      const told = await (await route.fetch()).json();
      for (const second of told.seconds) second.hit_seconds = { p50: seconds, p95: seconds, p99: seconds };
      await route.fulfill({ json: told });
    });
    await page.reload();
    await isLive(page);
    const trace = page.locator("#chart-latency path.trace.hits");
    await eventually("a trace", async () => /^M/.test(await trace.getAttribute("d")));
    const { axis, lowest } = await page.locator("#chart-latency").evaluate((chart) => ({
      axis: Math.max(...[...chart.querySelectorAll("line.rule")].map((rule) => Number(rule.getAttribute("y1")))),
      lowest: Math.max(...chart.querySelector("path.trace.hits").getAttribute("d").match(/ [\d.]+/g).map(Number)),
    }));
    assert.ok(lowest < axis - 2, `${lowest} of ${axis}`);
  });
}

shows("blocking pauses, counts down and goes on", async (page) => {
  await addresses("y.ads.test", false);
  await page.getByRole("button", { name: "Pause" }).click();
  await addresses("y.ads.test", true);
  const left = async () => {
    const [, minutes, seconds] = (await text(page, "#pause-state")).match(/Paused, (\d+):(\d\d) left/) ?? [];
    return 60 * minutes + Number(seconds);
  };
  const first = await eventually("a countdown", left);
  assert.ok(first <= 600, `${first}`);
  await eventually("it counts down", async () => (await left()) < first);
  await page.getByRole("button", { name: "Resume" }).click();
  await addresses("y.ads.test", false);
  await page.locator("#pause-state").waitFor({ state: "hidden" });
});

shows("hostile names are text and nothing else", async (page) => {
  const name = `${HOSTILE}.evil.test`;
  await node.dig(name);
  await node.dig(`"><script>alert(2)</script>.evil.test`);
  await page.fill("#search-text", ".evil.test");
  await page.press("#search-text", "Enter");
  const found = page.locator("#log tbody tr", { hasText: "<img" });
  await found.getByText("onerror=alert").waitFor();
  assert.equal(await page.locator("main img, main script, main iframe").count(), 0);
  await found.getByRole("button", { name: /^Block/ }).click();
  await page.locator("#overrides li", { hasText: "<img" }).waitFor();
  await addresses(name, false);
  await page.locator("#overrides li", { hasText: "<img" }).getByRole("button").click();
  await addresses(name, true);
  assert.equal(await page.locator("main img, main script, #toasts img").count(), 0);
  // The policy would stop even a page that erred.
  await assert.rejects(page.evaluate(() => { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); }), /TrustedHTML/);
}, { tolerate: /TrustedHTML|Content Security Policy/ });

shows("a wrong token is refused, the right one stays with the tab", async (page) => {
  await page.locator("#token-form").waitFor();
  await page.fill("#token", "not-the-token-at-all");
  await page.press("#token", "Enter");
  await page.locator("#token-error", { hasText: "does not take this token" }).waitFor();
  assert.equal(await page.locator("#token").inputValue(), "not-the-token-at-all");
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await page.fill("#token", TOKEN);
  await page.press("#token", "Enter");
  await isLive(page);
  await page.locator("#token-form").waitFor({ state: "hidden" });
  const kept = await page.evaluate(() => [JSON.stringify(localStorage), document.cookie, location.href, sessionStorage.length]);
  assert.ok(!kept.slice(0, 3).join().includes(TOKEN) && kept[3] === 1, kept.join());
  await page.reload();
  await isLive(page);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.locator("#token-form").waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
}, { token: null, tolerate: /401/ });

shows("a node that goes and comes back is followed", async (page) => {
  await isLive(page);
  await page.evaluate(() => { window.isSamePage = true; });
  await node.kill();
  await page.locator("#lost", { hasText: "Connection lost, trying again" }).waitFor();
  assert.equal(await text(page, "#link"), "Connection lost");
  await node.run();
  await isLive(page);
  await page.locator("#lost").waitFor({ state: "hidden" });
  await node.dig("after.test");
  await line(page, "after.test").waitFor();
  assert.equal(await page.evaluate(() => window.isSamePage), true);
}, { tolerate: /ERR_|Failed to load/ });

test("without token, query log and lists it says what turns them on", async () => {
  const poor = await Node.start(place, "", upstream);
  const { page, wrongs, close } = await open(browser, poor, { token: null, tolerate: /403/, path: "/ui" });
  await isLive(page);
  for (const notice of ["#blocking-notice", "#top-notice", "#queries-notice"]) {
    await page.locator(notice, { hasText: "api.token_file" }).waitFor();
  }
  assert.equal(await page.locator("#token-form").isVisible(), false);
  assert.deepEqual(wrongs, []);
  await close();
  await poor.kill();
  const bare = await Node.start(place, `[api]\ntoken = "${TOKEN}"\n`, upstream);
  const other = await open(browser, bare, { tolerate: /409/ });
  await other.page.locator("#queries-notice", { hasText: "query_log.path" }).waitFor();
  await other.page.locator("#top-notice", { hasText: "query_log.top" }).waitFor();
  await other.page.locator("#lists-empty", { hasText: "[[list]]" }).waitFor();
  assert.deepEqual(other.wrongs, []);
  await other.close();
  await bare.kill();
});

test("a node may have no page", async () => {
  const none = await Node.start(place, "[api]\npage = false\n", upstream);
  assert.equal((await fetch(`${none.url}/`)).status, 404);
  assert.equal((await fetch(`${none.url}/api/v1/status`)).status, 200);
  await none.kill();
});

/** Text whose contrast is below what WCAG 2 wants of normal text (AA, 4.5 : 1). */
function faint() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parsed = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parsed(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  let looked = 0;
  for (const node of document.body.querySelectorAll("*")) {
    const isText = [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.textContent.trim());
    if (!isText || !node.checkVisibility() || node.closest("noscript, :disabled, .skip, svg")) continue;
    looked++;
    const [one, other] = [light(parsed(getComputedStyle(node).color).slice(0, 3)), light(back(node).slice(0, 3))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) found.push(`${node.tagName} ${node.className} ${node.textContent.slice(0, 30)}: ${contrast.toFixed(2)}`);
  }
  return { found, looked };
}

for (const scheme of ["light", "dark"]) {
  shows(`${scheme} colours come with the system, and can be read`, async (page) => {
    await line(page, "after.test").waitFor();
    const shade = () => page.evaluate(() => Number(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0]));
    assert.equal((await shade()) > 128, scheme === "light");
    const { found, looked } = await page.evaluate(faint);
    assert.deepEqual(found, []);
    assert.ok(looked > 50, `${looked}`);
    const other = scheme === "light" ? "dark" : "light";
    while (!(await page.getByRole("button", { name: `Colours: ${other}` }).count())) await page.click("#theme");
    assert.equal((await shade()) > 128, scheme === "dark");
    await page.reload();
    assert.equal((await shade()) > 128, scheme === "dark", "the choice is kept");
  }, { colorScheme: scheme });
}

for (const width of [360, 768, 1920]) {
  shows(`${width} pixels are wide enough`, async (page) => {
    await node.dig(`${"a-very-long-label-".repeat(3)}x.${"another-one-".repeat(4)}x.test`);
    await page.locator("#log tbody tr", { hasText: "a-very-long-label" }).first().waitFor();
    const { beyond, scrolled } = await page.evaluate(() => ({
      scrolled: document.documentElement.scrollWidth - window.innerWidth,
      beyond: [...document.querySelectorAll("main *, header *")]
        .filter((node) => node.checkVisibility() && !node.closest(".hidden, .skip, svg, thead") && node.getBoundingClientRect().right > window.innerWidth + 1)
        .map((node) => `${node.tagName}#${node.id}.${node.className}`),
    }));
    assert.deepEqual(beyond, []);
    assert.ok(scrolled <= 0, `${scrolled}`);
    for (const id of ["load", "upstreams", "blocking", "queries"]) {
      await page.click(`nav a[href="#${id}"]`);
      await eventually(`${id} is seen`, () => page.locator(`#${id}`).evaluate((node) => node.getBoundingClientRect().top < window.innerHeight));
    }
  }, { viewport: { width, height: 800 }, reducedMotion: "reduce" });
}

shows("all of it can be done from the keyboard, and is named", async (page) => {
  await line(page, "after.test").waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input, select, a")]
    .filter((node) => node.checkVisibility() && !(node.getAttribute("aria-label") || node.labels?.length || node.textContent.trim()))
    .map((node) => node.outerHTML));
  assert.deepEqual(nameless, []);
  const seen = new Set();
  for (let steps = 0; steps < 40; steps++) {
    await page.keyboard.press("Tab");
    const [id, outline] = await page.evaluate(() => [document.activeElement.id || document.activeElement.getAttribute("aria-label"), getComputedStyle(document.activeElement).outlineStyle]);
    assert.notEqual(outline, "none", id);
    seen.add(id);
    if (id === "ruling-for") break;
  }
  for (const id of ["pause", "override-name", "override-subtree", "search-text", "search-answer", "ruling-for"]) assert.ok(seen.has(id), `${id}: ${[...seen]}`);
  // The node is asked again and again meanwhile: the focus stays.
  const button = line(page, "after.test").getByRole("button");
  await page.uncheck("#follow");
  await button.focus();
  await page.waitForResponse((reply) => reply.url().includes("/api/v1/lists"));
  await page.waitForResponse((reply) => reply.url().includes("/api/v1/lists"));
  assert.equal(await button.evaluate((node) => node === document.activeElement), true);
  await page.keyboard.press("Enter");
  await addresses("after.test", false);
  await page.locator(".toast").getByRole("button", { name: "Undo" }).press("Enter");
  await addresses("after.test", true);
});

/** What the node says to a GET with exactly these fields. */
function got(path, headers) {
  const { hostname, port } = new URL(node.url);
  return new Promise((resolve, reject) => {
    request({ hostname, port, path, headers }, (reply) => { reply.resume(); resolve(reply); }).on("error", reject).end();
  });
}

test("files are kept by browsers, framed by nobody, and not for other sites", async () => {
  const page = await fetch(`${node.url}/`);
  const html = await page.text();
  const policy = page.headers.get("content-security-policy");
  for (const part of ["default-src 'none'", "frame-ancestors 'none'", "script-src 'self'", "require-trusted-types-for 'script'"]) assert.ok(policy.includes(part), part);
  assert.equal(page.headers.get("x-content-type-options"), "nosniff");
  assert.equal(page.headers.get("referrer-policy"), "no-referrer");
  const script = html.match(/src="(page\.js\?\w+)"/)[1];
  const kept = await fetch(`${node.url}/${script}`);
  assert.match(kept.headers.get("cache-control"), /immutable/);
  assert.equal((await got("/", { "If-None-Match": page.headers.get("etag") })).statusCode, 304);
  assert.equal((await fetch(`${node.url}/api/v1/status`, { headers: { Authorization: `Bearer ${TOKEN}` } })).headers.get("cache-control"), "no-store");
  assert.equal((await got("/page.js", { "Sec-Fetch-Site": "cross-site" })).statusCode, 403);
  assert.equal((await got("/", { "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe" })).statusCode, 403);
});
