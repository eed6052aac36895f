// Takes the pictures of docs/images: a node under the load of some clients, with names and addresses of documentation, in a network
// of its own: scripts/dashboard-pictures.

import { createSocket } from "node:dgram";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

import { ensurePrograms, eventually, launch, Node, Place, TOKEN } from "./support.mjs";

// As many as the charts show: they are to be full.
const SECONDS = 300;
const IMAGES = new URL("../../docs/images/", import.meta.url).pathname;
const NODES = ["192.0.2.53", "2001:db8::53"];
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
  for (const own of [...NODES, ...CLIENTS, ...UPSTREAMS]) {
    ip("addr", "add", own, "dev", "lo", ...(own.includes(":") ? ["nodad"] : []));
  }
  // So that nothing comes back from there, not even that nobody is there.
  ip("route", "add", "blackhole", SILENT);
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
      for (let each = 0; each < 4 * times; each++) lines.push(`${host}.${zone} ${each % 3 ? "A" : "AAAA"}`);
    }
  }
  for (const [rank, name] of ADS.entries()) for (let each = 0; each < 150 / (rank + 1); each++) lines.push(`${name} A`);
  // Never asked before, and gone when they are asked again.
  const random = () => Math.random().toString(36).slice(2, 8);
  for (let each = 0; each < lines.length / 9; each++) lines.push(`h${random()}.${ZONES[each % ZONES.length]} A`);
  for (let each = 0; each < lines.length / 60; each++) lines.push(`no${random()}.${ZONES[each % 3]} A`);
  for (let last = lines.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1));
    [lines[last], lines[other]] = [lines[other], lines[last]];
  }
  return lines.join("\n") + "\n";
}

let isOver = false;

async function ask(place) {
  await Promise.all(CLIENTS.map(async (client, each) => {
    const [server, family] = client.includes(":") ? [NODES[1], "inet6"] : [NODES[0], "inet"];
    while (!isOver) {
      const wave = 1.1 + Math.sin(Date.now() / 38000 + each / 9) + 0.25 * Math.random();
      const rate = Math.round((420 * wave) / (1 + each / 3)) + 20;
      const child = place.spawn("dnsperf", ["-f", family, "-s", server, "-a", client, "-d", place.write(`questions-${each}`, questions(each)), "-Q", String(rate), "-l", "7", "-c", "4", "-T", "1"], { stdio: "ignore" });
      const [code] = await once(child, "exit");
      if (code !== 0 && !isOver) throw new Error(`dnsperf from ${client}: exit code ${code}`);
    }
  }));
}

function config(place) {
  const ads = place.write("ads.txt", ["||adnet.example^", "||tracker.example^", "||stats.example^", ...Array.from({ length: 18_231 }, (_, each) => `||ads${each}.example^`)].join("\n"));
  const threats = place.write("threats.txt", Array.from({ length: 4_107 }, (_, each) => `bad${each}.example`).join("\n"));
  const family = place.write("allow.txt", "stats.example.org\nshop.example.com\n");
  return `[api]
token = "${TOKEN}"
[acl]
allow = ["192.0.2.0/24", "2001:db8::/64"]
[cache]
size = "64MiB"
[query_log]
path = "${place.path}/queries.sqlite"
top = 200
[filter]
directory = "${place.path}/kept"
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

async function shoot(browser, url, name, { colorScheme, viewport, scale = 1, below = null }) {
  const context = await browser.newContext({ colorScheme, viewport, deviceScaleFactor: scale, reducedMotion: "reduce" });
  const page = await context.newPage();
  await page.addInitScript((token) => sessionStorage.setItem("heimdall-token", token), TOKEN);
  await page.goto(url);
  await page.locator("#log tbody tr").first().waitFor();
  await page.locator("#top-clients li").first().waitFor();
  await sleep(3500);
  if (below) await page.click(`nav a[href="${below}"]`);
  await page.screenshot({ path: `${IMAGES}dashboard-${name}.png` });
  await context.close();
}

ensurePrograms();
network();
const place = new Place(process.env.PLACE);
try {
  UPSTREAMS.forEach((address, each) => startUpstream(address, [9, 16][each]));
  const node = new Node(place, config(place), [...UPSTREAMS, SILENT], { dns: [`${NODES[0]}:53`, `[${NODES[1]}]:53`], api: "127.0.0.1:8053", cores: "0,1" });
  await node.run();
  await eventually("an answer", async () => (await node.dig("www.example.org")).addresses.length);
  const load = ask(place);
  const browser = await launch();
  for (let told = 0; told < SECONDS;) {
    await sleep(1000);
    if (node.child.exitCode !== null || node.child.signalCode) throw new Error(`the node has ended: ${node.log}`);
    const history = await fetch(`${node.url}/api/v1/history`, { headers: { Authorization: `Bearer ${TOKEN}` } });
    told = (await history.json()).seconds.length;
  }
  await node.command("overrides/add", { name: "count.stats.example", action: "allow", for: "1h" });
  await node.command("overrides/add", { name: "game.example.net", action: "block", subtree: true });
  await shoot(browser, node.url, "light", { colorScheme: "light", viewport: { width: 1280, height: 910 } });
  await shoot(browser, node.url, "dark", { colorScheme: "dark", viewport: { width: 1280, height: 1330 }, below: "#blocking" });
  await shoot(browser, node.url, "phone", { colorScheme: "light", viewport: { width: 390, height: 844 }, scale: 1.5 });
  await browser.close();
  isOver = true;
  await load;
} finally {
  isOver = true;
  await place.close();
}
process.exit(0);
