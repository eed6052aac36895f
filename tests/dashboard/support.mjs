// What the tests of the dashboard stand on: the real binary, NSD as its upstream, dig as its client, Debian's Chromium.

import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

import { chromium } from "playwright-core";

export const TOKEN = "0123456789abcdef-of-the-tests";

// Generous: the machine may be busy with other tests.
export const PATIENCE_MS = 30_000;

const BINARY = process.env.DASHBOARD_BINARY ?? new URL("../../target/debug/heimdall-uring", import.meta.url).pathname;
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

const run = promisify(execFile);

/** Waits until `condition` gives something true, asking again and again. */
export async function eventually(what, condition) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`${what} did not happen within ${PATIENCE_MS} ms`);
    await sleep(50);
  }
}

/** A loopback address of this process's own. */
const HOST = `127.${64 + (process.pid >> 16) % 64}.${(process.pid >> 8) & 255}.${(process.pid & 255) || 1}`;

async function freePort() {
  const server = createServer();
  server.listen(0, HOST);
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

const isRunning = (child) => child.exitCode === null && child.signalCode === null;

async function end(child, signal) {
  if (!isRunning(child)) return;
  child.kill(signal);
  await once(child, "exit");
}

/** A temporary directory, and what ends with it. */
export class Place {
  constructor(path = mkdtempSync(join(tmpdir(), "heimdall-page-"))) {
    this.path = path;
    this.children = [];
  }

  write(name, text) {
    const path = join(this.path, name);
    writeFileSync(path, text);
    return path;
  }

  spawn(program, parameters, options) {
    const child = spawn(program, parameters, { stdio: ["ignore", "ignore", "pipe"], ...options });
    this.children.push(child);
    return child;
  }

  async close() {
    // NSD takes its children along when it is asked to go.
    for (const child of this.children) await end(child, child.spawnfile.endsWith("nsd") ? "SIGTERM" : "SIGKILL");
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Starts NSD with a zone `test.` in which every name has an address; gives its address. */
export async function startNsd(place) {
  const port = await freePort();
  const path = place.path;
  place.write("zone", "$ORIGIN test.\n$TTL 300\n@ SOA ns hostmaster 1 7200 3600 1209600 60\n@ NS ns\n* A 192.0.2.80\n* AAAA 2001:db8::80\n");
  const config = `server:
  ip-address: ${HOST}@${port}
  username: ""
  chroot: ""
  zonesdir: "${path}"
  database: ""
  pidfile: "${path}/nsd.pid"
  xfrdfile: "${path}/xfrd.state"
  xfrdir: "${path}"
  zonelistfile: "${path}/zone.list"
  logfile: "${path}/nsd.log"
  server-count: 1
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: test
  zonefile: zone
`;
  place.spawn("/usr/sbin/nsd", ["-d", "-c", place.write("nsd.conf", config)]);
  return `${HOST}:${port}`;
}

/** The node under test. */
export class Node {
  /** One that asks `upstreams`, serves at the addresses `dns` (with port) and has its API at `api`. */
  constructor(place, config, upstreams, { dns, api, cores = "0" }) {
    Object.assign(this, { place, config, upstreams, dns, api, cores, url: `http://${api}` });
    [, this.host, this.port] = dns[0].match(/(.*):(\d+)$/);
  }

  /** Starts one with `config` as its config file, on free ports. */
  static async start(place, config, upstream) {
    const [dns, api] = [`${HOST}:${await freePort()}`, `${HOST}:${await freePort()}`];
    const node = new Node(place, config, [upstream], { dns: [dns], api });
    await node.run();
    return node;
  }

  /** Starts it, for the first time or again, and waits until it serves. */
  async run() {
    const file = this.place.write(`node-${this.port}.toml`, this.config);
    const listen = this.dns.flatMap((address) => ["--listen", address]);
    const upstreams = this.upstreams.flatMap((address) => ["--upstream", address]);
    const env = { ...process.env, NO_COLOR: "1", HEIMDALL_SPECIAL_TEST: "false", HEIMDALL_API_LISTEN: this.api };
    this.child = this.place.spawn(BINARY, ["--config", file, "--cores", this.cores, ...listen, ...upstreams], { env });
    this.log = "";
    this.child.stderr.on("data", (text) => { this.log += text; });
    await eventually("the node serves", () => {
      if (!isRunning(this.child)) throw new Error(`the node has ended: ${this.log}`);
      return this.log.includes("serving on");
    });
  }

  async kill() {
    await end(this.child, "SIGKILL");
  }

  /** What dig gets for `name`: status and addresses. Octets other than letters, digits, dots and hyphens are escaped. */
  async dig(name, type = "A") {
    const escaped = name.replace(/[^A-Za-z0-9.-]/g, (letter) => `\\${String(letter.charCodeAt(0)).padStart(3, "0")}`);
    const { stdout } = await run("dig", ["-r", `@${this.host}`, "-p", this.port, "+tries=3", "+time=5", "+noall", "+comments", "+answer", escaped, type]);
    const addresses = stdout.split("\n").filter((line) => line && !line.startsWith(";")).map((line) => line.split(/\s+/).at(-1));
    return { status: stdout.match(/status: (\w+)/)?.[1], addresses };
  }

  /** Sends so many queries per second for so many seconds, over and over those of `file`. */
  load(file, perSecond, seconds) {
    return run("dnsperf", ["-s", this.host, "-p", this.port, "-d", file, "-Q", String(perSecond), "-l", String(seconds)]);
  }

  /** Commands it over its API. */
  async command(path, body) {
    const reply = await fetch(`${this.url}/api/v1/${path}`, {
      method: "POST",
      headers: { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`);
  }
}

/** Starts Chromium. */
export function launch() {
  if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM} is missing: run scripts/setup --tests`);
  const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  return chromium.launch({ executablePath: CHROMIUM, args: quiet });
}

/** A page of its own that shows the dashboard of `node`, and what must not happen there. */
export async function open(browser, node, { token = TOKEN, tolerate = null, path = "/", ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const wrongs = [];
  page.on("console", (message) => {
    const isWrong = ["error", "warning"].includes(message.type()) && !tolerate?.test(message.text());
    if (isWrong) wrongs.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => wrongs.push(`error: ${error}`));
  page.on("dialog", (dialog) => { wrongs.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => {
    if (!request.url().startsWith(`${node.url}/`)) wrongs.push(`foreign request: ${request.url()}`);
  });
  if (token) await page.addInitScript((known) => sessionStorage.setItem("heimdall-token", known), token);
  await page.goto(node.url + path);
  return { page, wrongs, close: () => context.close() };
}

/** Whether all programs are there that the tests need. */
export function ensurePrograms() {
  for (const program of ["dig", "dnsperf"]) execFileSync("sh", ["-c", `command -v ${program}`], { stdio: "ignore" });
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is missing: run cargo build`);
}
