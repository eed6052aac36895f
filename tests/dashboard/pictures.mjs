// Takes the pictures of docs/images: a node under the load of some clients, with names and addresses of documentation, in a network
// of its own: scripts/dashboard-pictures.

import { createSocket } from "node:dgram";
import { execFileSync, spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";

import { ensurePrograms, eventually, launch, Node, Place, TOKEN } from "./support.mjs";

const MINUTES = Number(process.env.MINUTES ?? 5.2);
const IMAGES = new URL("../../docs/images/", import.meta.url).pathname;
const NODE = "192.0.2.53";
const UPSTREAMS = ["198.51.100.7", "203.0.113.9"];
// Nobody is there.
const SILENT = "203.0.113.77";

const CLIENTS = ["192.0.2.21", "192.0.2.34", "192.0.2.35", "192.0.2.48", "192.0.2.77", "192.0.2.112", "192.0.2.190", "2001:db8::1:15", "2001:db8::1:2f"];
const ZONES = ["example.org", "example.net", "example.com", "shop.example.com", "media.example.net", "corp.example.org", "weather.example.net", "maps.example.com"];
const HOSTS = ["www", "api", "cdn", "img", "static", "mail", "login", "app", "time", "update", "push", "video", "news", "search", "docs", "git", "chat", "calendar", "files", "status"];
const ADS = ["metrics.adnet.example", "pixel.tracker.example", "beacon.adnet.example", "count.stats.example", "telemetry.tracker.example"];

function network() {
  const ip = (...parameters) => execFileSync("ip", parameters);
  ip("link", "set", "lo", "up");
  for (const net of ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/28"]) ip("route", "add", "local", net, "dev", "lo");
  ip("-6", "route", "add", "local", "2001:db8::/64", "dev", "lo");
  // So that nothing comes back from there, not even that nobody is there.
  ip("route", "add", "blackhole", `${SILENT}/32`);
}

/** An upstream that takes as long as one in the Internet: answers addresses, and denies what begins with `no`. */
function startUpstream(address, typicalMs) {
  const socket = createSocket("udp4");
  socket.on("message", (query, from) => {
    const end = query.indexOf(0, 12) + 5;
    const isAbsent = query.toString("latin1", 13, 15) === "no";
    const is6 = query.readUInt16BE(end - 4) === 28;
    const data = is6 ? [0x20, 1, 0xd, 0xb8, ...Array(11).fill(0), query[14]] : [192, 0, 2, 128 + (query[14] & 63)];
    const head = Buffer.from([query[0], query[1], 0x85, isAbsent ? 0x83 : 0x80, 0, 1, 0, isAbsent ? 0 : 1, 0, 0, 0, 0]);
    const record = Buffer.from([0xc0, 12, query[end - 4], query[end - 3], 0, 1, 0, 0, 0, 20 + (query[14] & 127), 0, data.length, ...data]);
    const reply = Buffer.concat([head, query.subarray(12, end), ...(isAbsent ? [] : [record])]);
    const wait = typicalMs * Math.exp(0.45 * (Math.random() + Math.random() + Math.random() - 1.5) * 2);
    setTimeout(() => socket.send(reply, from.port, from.address), wait);
  });
  socket.bind(53, address);
}

/** Lines for dnsperf: few names often, many rarely. */
function questions(seed) {
  const lines = [];
  for (const [place, zone] of ZONES.entries()) {
    for (const [rank, host] of HOSTS.entries()) {
      const times = Math.ceil(120 / ((1 + (rank + seed) % HOSTS.length) * (1 + place)));
      for (let each = 0; each < times; each++) lines.push(`${host}.${zone} ${each % 3 ? "A" : "AAAA"}`);
    }
  }
  for (const [rank, name] of ADS.entries()) for (let each = 0; each < 50 / (rank + 1); each++) lines.push(`${name} A`);
  for (let each = 0; each < 110; each++) lines.push(`h${(each * 7919 + seed * 104729) % 65536}.${ZONES[each % ZONES.length]} A`);
  for (let each = 0; each < 12; each++) lines.push(`no${each + 100 * seed}.${ZONES[each % 3]} A`);
  for (let last = lines.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1));
    [lines[last], lines[other]] = [lines[other], lines[last]];
  }
  return lines.join("\n") + "\n";
}

async function ask(place, end) {
  const files = CLIENTS.map((_, each) => place.write(`questions-${each}`, questions(each)));
  await Promise.all(CLIENTS.map(async (client, each) => {
    const server = client.includes(":") ? "2001:db8::53" : NODE;
    while (Date.now() < end) {
      const wave = 1.1 + Math.sin(Date.now() / 38000 + each / 9) + 0.25 * Math.random();
      const rate = Math.round((420 * wave) / (1 + each / 3)) + 20;
      const child = spawn("dnsperf", ["-s", server, "-a", client, "-d", files[each], "-Q", String(rate), "-l", "7", "-c", "4", "-T", "1"], { stdio: "ignore" });
      await new Promise((resolve) => child.once("exit", resolve));
    }
  }));
}

function config(place) {
  const ads = place.write("ads.txt", ["||adnet.example^", "||tracker.example^", "||stats.example^", ...Array.from({ length: 18_231 }, (_, each) => `||ads${each}.example^`)].join("\n"));
  const threats = place.write("threats.txt", Array.from({ length: 4_107 }, (_, each) => `bad${each}.example`).join("\n"));
  const family = place.write("allow.txt", "stats.example.org\nshop.example.com\n");
  return `[api]
token = "${TOKEN}"
[cache]
size = "64MiB"
[query_log]
path = "${place.path}/queries.sqlite"
top = 200
[[list]]
name = "ads"
file = "${ads}"
[[list]]
name = "threats"
file = "${threats}"
answer = "refused"
[[list]]
name = "house rules"
file = "${family}"
kind = "allow"
`;
}

async function shoot(browser, url, name, { colorScheme, viewport, scale = 1, scroll = null }) {
  const context = await browser.newContext({ colorScheme, viewport, deviceScaleFactor: scale, reducedMotion: "reduce" });
  const page = await context.newPage();
  await page.addInitScript((token) => sessionStorage.setItem("heimdall-token", token), TOKEN);
  await page.goto(url);
  await page.locator("#log tbody tr").first().waitFor();
  await page.locator("#top-clients li").first().waitFor();
  await sleep(3500);
  if (scroll) await page.locator(scroll).scrollIntoViewIfNeeded();
  await page.screenshot({ path: `${IMAGES}dashboard-${name}.png` });
  await context.close();
}

ensurePrograms();
network();
const place = new Place();
try {
  UPSTREAMS.forEach((address, each) => startUpstream(address, [9, 16][each]));
  const node = new Node(place, config(place), [...UPSTREAMS, SILENT], { dns: [`${NODE}:53`, "[2001:db8::53]:53"], api: "127.0.0.1:8053", cores: "0,1" });
  await node.run();
  await eventually("an answer", async () => (await node.dig("www.example.org")).addresses.length);
  const end = Date.now() + MINUTES * 60_000;
  const load = ask(place, end + 60_000);
  const browser = await launch();
  await sleep(Math.max(0, end - Date.now()));
  await node.command("overrides/add", { name: "count.stats.example", action: "allow", for: "1h" });
  await node.command("overrides/add", { name: "game.example.net", action: "block", subtree: true });
  const wide = { width: 1280, height: 1060 };
  await shoot(browser, node.url, "light", { colorScheme: "light", viewport: wide });
  await shoot(browser, node.url, "dark", { colorScheme: "dark", viewport: { width: 1280, height: 2180 } });
  await shoot(browser, node.url, "phone", { colorScheme: "light", viewport: { width: 390, height: 844 }, scale: 1.5 });
  await browser.close();
  await load;
} finally {
  await place.close();
}
process.exit(0);
