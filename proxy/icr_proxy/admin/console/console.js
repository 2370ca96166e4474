// icr-proxy: the live console. One stream of events (/events), one look at /status every few
// seconds, and nothing else. Text from the proxy only ever becomes text (textContent).
"use strict";

const $ = (id) => document.getElementById(id);
const ROW = 34, KEEP = 500, SPAN = 300;
const STATUS_SECONDS = 2, RETRY_SECONDS = [0.5, 1, 2, 4, 8];
const CONSOLE = { "X-ICR-Proxy-Console": "1" };

// What the page counts of itself; the browser test reads it.
const stats = { frames: 0, rows: 0, events: 0, requests: 0, missed: 0, longTasks: 0, bound: 0 };
globalThis.consoleStats = stats;
if (globalThis.PerformanceObserver?.supportedEntryTypes?.includes("longtask")) {
  new PerformanceObserver((list) => { stats.longTasks += list.getEntries().length; })
    .observe({ entryTypes: ["longtask"] });
}

const known = {
  seconds: new Map(), since: 0, minute: null, inFlight: 0, leftOut: 0, missed: 0,
  rows: [], pending: [], seen: new Set(), tallies: new Map(), wouldRefuse: {},
  status: null, facts: null, clock: 0, tab: "traffic", paused: false, held: false, selected: null, open: null,
};
const now = () => Date.now() / 1000 + known.clock;  // by the proxy's clock

// -- small tools --------------------------------------------------------------------------------

function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  const { text, ...attributes } = options;
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function say(element, text) {  // writes only what differs: most of a frame does not
  if (element.firstChild?.data !== text || element.childNodes.length !== 1) element.textContent = text;
}

function mark(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : value);
}

function count(number) {
  return number >= 10000 ? `${(number / 1000).toFixed(number < 100000 ? 1 : 0)} k` : String(number);
}

function plural(number, one, many = `${one}s`) { return `${number.toLocaleString("en")} ${number === 1 ? one : many}`; }

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const ms = seconds * 1000;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${ms.toFixed(0)} ms`;
  return seconds < 100 ? `${seconds.toFixed(2)} s` : `${seconds.toFixed(0)} s`;
}

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, "0")} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${String(Math.floor(s / 60) % 60).padStart(2, "0")} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1048576) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / 1048576).toFixed(1)} MiB`;
}

function clock(at, precise = false) {
  const date = new Date(at * 1000), two = (n) => String(n).padStart(2, "0");
  const base = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return precise ? `${base}.${String(date.getMilliseconds()).padStart(3, "0")}` : base;
}

let toasting = 0;
function toast(text) {
  const box = $("toast");
  box.textContent = text;
  box.setAttribute("data-shown", "");
  clearTimeout(toasting);
  toasting = setTimeout(() => box.removeAttribute("data-shown"), 3500);
}

// The order of the timeline's numbers: well, the caller's mistake, refused here, failed.
const ENDINGS = ["ok", "client", "refused", "failed"];
function ending(row) {
  if ((row.code && row.status < 400) || row.status >= 500) return "failed";
  if (row.status < 400) return "ok";
  return row.origin === "proxy" && row.code !== "caller-gone" ? "refused" : "client";
}

// -- talking to the proxy -----------------------------------------------------------------------

// The token may come as #token=…: a fragment is never sent, and is taken out of the address at once.
let token = "";
try { token = sessionStorage.getItem("admin-token") || ""; } catch { /* storage may be closed */ }
const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.get("token")) {
  keepToken(fragment.get("token"));
  history.replaceState(null, "", location.pathname);
}

function keepToken(text) {
  token = text.trim();
  try { sessionStorage.setItem("admin-token", token); } catch { /* then for this page only */ }
}

function ask(path, options = {}) {
  const headers = { ...CONSOLE, ...(options.headers || {}) };
  if (token) headers["X-ICR-Proxy-Admin-Token"] = token;
  return fetch(path, { cache: "no-store", credentials: "omit", redirect: "error", ...options, headers });
}

async function message(response) {
  try { return (await response.json()).message || response.statusText; } catch { return response.statusText; }
}

function live(state, text) {
  mark($("live"), "data-state", state);
  say($("live"), text);
}

let attempt = 0, reconnecting = 0, stream = null;
async function listen() {
  clearTimeout(reconnecting);
  stream?.abort();
  stream = new AbortController();
  let ended = "connection lost";
  try {
    const response = await ask("/events", { signal: stream.signal, headers: { Accept: "text/event-stream" } });
    if (response.status === 403) return closed(await message(response));
    if (!response.ok) throw new Error(await message(response));
    $("gate").hidden = true;
    attempt = 0;
    live("on", "live");
    if (!known.facts) loadFacts();
    if (!known.status) look();
    ended = await read(response.body.getReader()) || ended;
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.message && !(error instanceof TypeError)) ended = error.message.replace(/\.$/, "");
  }
  live("off", ended);
  reconnecting = setTimeout(listen, 1000 * RETRY_SECONDS[Math.min(attempt++, RETRY_SECONDS.length - 1)]);
}

function closed(text) {
  live("off", "closed");
  $("gate").hidden = false;
  $("gate-text").textContent = text;
}

async function read(reader) {
  const decoder = new TextDecoder();
  let buffer = "", reason = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return reason;
    buffer += decoder.decode(value, { stream: true });
    let end;
    while ((end = buffer.indexOf("\n\n")) >= 0) {
      const block = buffer.slice(0, end);
      buffer = buffer.slice(end + 2);
      let name = "", data = "";
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) name = line.slice(7);
        else if (line.startsWith("data: ")) data += line.slice(6);
      }
      if (!data) continue;  // a heartbeat
      if (name === "end") reason = JSON.parse(data).reason;
      else take(name, JSON.parse(data));
    }
  }
}

function take(name, told) {
  stats.events += 1;
  if (name === "missed") {
    stats.missed = known.missed += told.requests;
    return;
  }
  known.clock = told.now - Date.now() / 1000;
  known.minute = told.minute;
  known.inFlight = told.in_flight;
  known.wouldRefuse = told.would_refuse;
  if (name === "snapshot") {
    known.since = told.since;
    known.seconds.clear();
  }
  for (const second of told.seconds) known.seconds.set(second[0], second);
  for (const [id, tally] of Object.entries(told.installations)) known.tallies.set(id, tally);
  known.leftOut += told.left_out || 0;
  if (name === "frame") stats.requests += told.rows.length + told.left_out;
  addRows(told.rows);
  for (const [id, startedAt, seq] of told.audited || []) addRecord(`${id} ${startedAt}`, seq);
  if (known.seconds.size > SPAN * 2) {
    for (const at of known.seconds.keys()) if (at < told.now - SPAN) known.seconds.delete(at);
  }
  dirty.add("numbers").add("charts").add("rows").add("installations");
  schedule();
}

async function loadStatus() {
  let pause = STATUS_SECONDS;
  if (!document.hidden) {
    const began = performance.now();
    try {
      const response = await ask("/status");
      if (!response.ok) throw new Error(await message(response));
      known.status = await response.json();
      known.statusAt = performance.now();
    } catch {
      if (known.status) known.status.state = "gone";
    }
    pause = Math.max(pause, (performance.now() - began) / 50);
    dirty.add("status").add("installations");
    schedule();
  }
  setTimeout(loadStatus, pause * 1000);
}

async function loadFacts() {
  try {
    const response = await ask("/facts");
    if (!response.ok) return;
    known.facts = await response.json();
    showFacts();
  } catch { /* with the next connection */ }
}

async function throwSwitch(path, button) {
  button.disabled = true;
  try {
    const response = await ask(path, { method: "POST" });
    const told = await response.json();
    if (!response.ok) toast(told.message || response.statusText);
    else if ("dropped" in told) toast(told.dropped ? "Token dropped: the next request has a new one made." : "There was no token to drop.");
    else toast(told.blocked ? "Blocked: it gets no token from here until it is unblocked." : "Unblocked.");
  } catch { toast("The proxy does not answer."); }
  button.disabled = false;
  look();
}

async function look() {  // once, right after a switch was thrown
  try {
    const response = await ask("/status");
    if (!response.ok) return;
    known.status = await response.json();
    known.statusAt = performance.now();
    dirty.add("status").add("installations");
    schedule();
  } catch { /* the next look tells */ }
}

// -- drawing: whatever happens, once per animation frame ----------------------------------------

const dirty = new Set();
let scheduled = false;
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    stats.frames += 1;
    const parts = new Set(dirty);
    dirty.clear();
    if (parts.has("numbers")) drawNumbers();
    if (parts.has("status")) drawStatus();
    if (known.tab === "traffic") {
      if (parts.has("charts")) drawCharts();
      if (parts.has("rows")) drawRows();
    }
    if (parts.has("installations")) drawInstallations();
  });
}
setInterval(() => {  // time passes even if nothing happens
  dirty.add("charts").add("numbers").add("installations");
  schedule();
}, 1000);

function drawNumbers() {
  const minute = recent();
  say($("n-rate"), minute.rate >= 100 ? minute.rate.toFixed(0) : minute.rate.toFixed(1));
  say($("n-rate-note"), `${plural(minute.total, "request")} in ${Math.round(minute.length)} s`);
  say($("n-errors"), minute.total ? (100 * minute.failed / minute.total).toFixed(minute.failed ? 1 : 0) : "0");
  say($("n-errors-note"), `${count(minute.refused)} refused · ${count(minute.client)} 4xx`);
  mark($("n-errors").closest(".tile"), "data-tone", minute.failed ? "failed" : null);
  const [p50, p90, p99] = (known.minute || []).slice(5);
  for (const [name, value] of [["p50", p50], ["p99", p99]]) {
    const [number, unit] = minute.total && value !== undefined && value !== null ? duration(value / 1000).split(" ") : ["–", ""];
    say($(`n-${name}`), number);
    say($(`u-${name}`), unit);
  }
  say($("n-p90"), `p99; p90 is ${minute.total && p90 ? duration(p90 / 1000) : "–"}`);
  say($("n-flight"), count(known.inFlight));
}

function recent() {  // the last minute, or as much of it as is known
  const end = now(), begin = Math.max(end - 60, known.since || end - 60);
  const found = { total: 0, ok: 0, client: 0, refused: 0, failed: 0, length: Math.max(1, end - begin) };
  for (let at = Math.floor(begin); at <= end; at++) {
    const second = known.seconds.get(at);
    if (!second) continue;
    ENDINGS.forEach((name, index) => { found[name] += second[index + 1]; found.total += second[index + 1]; });
  }
  found.rate = found.total / found.length;
  return found;
}

// -- charts -------------------------------------------------------------------------------------

const EDGE = 48;  // where the labels end and the plot begins
let cursor = null;  // the second that the pointer or an arrow key has chosen
const palette = {};

function readPalette() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["grid", "line", "faint", "muted", "text", "ok", "client", "refused", "failed", "p50", "p90", "p99", "sunken"]) {
    palette[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

function nice(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  for (const step of [1, 2, 3, 4, 6, 10]) {  // even, so that the line half-way is a whole number
    if (most <= step * power && step * power % 2 === 0) return step * power;
  }
  return most;
}

function prepare(id) {
  const canvas = $(id), box = canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
  const width = Math.round(box.width), height = Math.round(box.height);
  if (!width) return null;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif";
  return { pen, width, height, left: EDGE, right: width - 4, top: 10, bottom: height - 20 };
}

function drawCharts() {
  const end = Math.floor(now()) - 1;  // the second under way is not whole yet
  drawBars("rate", end, [1, 2, 3, 4]);
  drawBars("errors", end, [2, 3, 4]);
  drawLatency(end);
}

function axes(area, end, ticks) {
  const { pen, left, right, top, bottom } = area;
  const x = (at) => right - (end + 1 - at) * (right - left) / SPAN;
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  for (const [y, label] of ticks) {
    pen.strokeStyle = palette.grid;
    pen.beginPath(); pen.moveTo(left, Math.round(y) + .5); pen.lineTo(right, Math.round(y) + .5); pen.stroke();
    pen.fillStyle = palette.faint;
    pen.textAlign = "right";
    pen.fillText(label, left - 6, y);
  }
  pen.textBaseline = "alphabetic";
  pen.fillStyle = palette.faint;
  for (let minutes = 4; minutes >= 0; minutes--) {
    const at = x(end + 1 - minutes * 60);
    pen.textAlign = minutes ? "center" : "right";
    pen.fillText(minutes ? `−${minutes} min` : "now", at, bottom + 15);
  }
  const unknown = Math.min(right, x(known.since));
  if (known.since && unknown > left + 1) {  // nobody was looking, so nobody counted
    pen.fillStyle = palette.sunken;
    pen.fillRect(left, top, unknown - left, bottom - top);
    if (unknown - left > 96) {
      pen.fillStyle = palette.faint;
      pen.textAlign = "center";
      pen.fillText(isBeforeStart() ? "before its start" : "no console was open", (left + unknown) / 2, (top + bottom) / 2 + 4);
    }
  }
  return x;
}

function isBeforeStart() {
  const status = known.status;
  return Boolean(status && known.statusAt && known.since < now() - status.uptime - (performance.now() - known.statusAt) / 1000 + 3);
}

function pointer(area, x, end) {
  if (cursor === null || cursor > end || cursor <= end - SPAN) return;
  const { pen, top, bottom } = area, at = Math.round(x(cursor + .5)) + .5;
  pen.strokeStyle = palette.muted;
  pen.setLineDash([3, 3]);
  pen.beginPath(); pen.moveTo(at, top); pen.lineTo(at, bottom); pen.stroke();
  pen.setLineDash([]);
}

function drawBars(name, end, columns) {
  const area = prepare(`chart-${name}`);
  if (!area) return;
  const { pen, left, right, top, bottom } = area;
  let most = 0;
  for (let at = end - SPAN + 1; at <= end; at++) {
    const second = known.seconds.get(at);
    if (second) most = Math.max(most, columns.reduce((sum, column) => sum + second[column], 0));
  }
  const high = nice(Math.max(most, name === "rate" ? 4 : 2));
  const y = (value) => bottom - value * (bottom - top) / high;
  const x = axes(area, end, [0, .5, 1].map((share) => [y(high * share), count(high * share)]));
  const width = (right - left) / SPAN, gap = width > 3 ? 1 : 0;
  // Bars of one colour at a time, on whole pixels, so that neighbours neither overlap nor part.
  const heights = new Float64Array(SPAN);
  for (const column of columns) {
    pen.fillStyle = palette[ENDINGS[column - 1]];
    for (let index = 0; index < SPAN; index++) {
      const second = known.seconds.get(end - SPAN + 1 + index);
      if (!second || !second[column]) continue;
      const from = Math.round(left + index * width), to = Math.max(from + 1, Math.round(left + (index + 1) * width) - gap);
      const base = y(heights[index]), peak = y(heights[index] += second[column]);
      pen.fillRect(from, peak, to - from, Math.max(1, base - peak));
    }
  }
  pointer(area, x, end);
  legend(name, end, columns.map((column) => [ENDINGS[column - 1], column]));
}

function drawLatency(end) {
  const area = prepare("chart-latency");
  if (!area) return;
  const { pen, left, right, top, bottom } = area;
  let low = Infinity, high = 0;
  for (let at = end - SPAN + 1; at <= end; at++) {
    const second = known.seconds.get(at);
    if (second && second[5] !== null) {
      low = Math.min(low, second[5]);
      high = Math.max(high, second[7]);
    }
  }
  if (!high) { low = 1; high = 100; }
  const first = Math.floor(Math.log10(low)), last = Math.max(first + 1, Math.ceil(Math.log10(high)));
  const y = (ms) => bottom - (Math.log10(ms) - first) * (bottom - top) / (last - first);
  const ticks = [];
  for (let power = first; power <= last; power++) ticks.push([y(10 ** power), power < 3 ? `${10 ** power} ms` : `${10 ** (power - 3)} s`]);
  const x = axes(area, end, ticks);
  const width = (right - left) / SPAN;
  // Of each second one column: from the median to p90, and on to p99; a line through single
  // values would swing between the ends of the scale whenever little is going on.
  const columns = [["p99", 6, 7, .55], ["p90", 5, 6, .8], ["p50", 5, 5, 1]];
  for (const [name, from, to, strength] of columns) {
    pen.fillStyle = palette[name];
    pen.globalAlpha = strength;
    for (let index = 0; index < SPAN; index++) {
      const second = known.seconds.get(end - SPAN + 1 + index);
      if (!second || second[to] === null) continue;
      const begin = Math.round(left + index * width), stop = Math.max(begin + 1, Math.round(left + (index + 1) * width));
      const peak = y(second[to]) - 1, base = y(second[from]) + 1;
      pen.fillRect(begin, peak, stop - begin, base - peak);
    }
  }
  pen.globalAlpha = 1;
  pointer(area, x, end);
  legend("latency", end, [["p50", 5], ["p90", 6], ["p99", 7]]);
}

const NAMES = { ok: "ok", client: "4xx", refused: "refused", failed: "failed", p50: "p50", p90: "p90", p99: "p99" };
function legend(name, end, columns) {
  const at = cursor !== null && cursor <= end ? cursor : end;
  const second = known.seconds.get(at);
  const box = $(`legend-${name}`);
  if (!box.firstChild) {
    for (const [key] of columns) {
      box.append(make("span", { class: `c-${key}` }, make("em", { text: `${NAMES[key]} ` }), make("i")));
    }
  }
  const words = columns.map(([key, column], index) => {
    const value = second ? second[column] : null;
    const text = name === "latency" ? (value === null ? "–" : duration(value / 1000)) : count(value || 0);
    say(box.children[index].lastChild, text);
    return `${NAMES[key]} ${text}`;
  });
  mark($(`chart-${name}`), "aria-label", `${clock(at)}: ${words.join(", ")}`);
}

function choose(at) {
  cursor = at;
  dirty.add("charts");
  schedule();
}

for (const name of ["rate", "errors", "latency"]) {
  const canvas = $(`chart-${name}`);
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect(), left = EDGE, right = box.width - 4;
    const share = (event.clientX - box.left - left) / (right - left), end = Math.floor(now()) - 1;
    choose(share < 0 || share > 1 ? null : end - SPAN + 1 + Math.min(SPAN - 1, Math.floor(share * SPAN)));
  });
  canvas.addEventListener("pointerleave", () => choose(null));
  canvas.addEventListener("blur", () => choose(null));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const end = Math.floor(now()) - 1;
    choose(Math.max(end - SPAN + 1, Math.min(end, (cursor ?? end + 1) + step * (event.shiftKey ? 10 : 1))));
  });
}
new ResizeObserver(() => { dirty.add("charts").add("rows"); schedule(); }).observe($("main"));

// -- the list of requests: a window of rows that are used again and again -----------------------

const list = $("rows"), pool = [];
let view = [];

// The record of the audit trail is written a moment after the row was shown.
function addRecord(key, seq) {
  const row = [...known.rows, ...known.pending].find((each) => each.key === key);
  if (!row) return;
  row.audit_seq = seq;
  if (known.open === row) for (const shown of $("drawer").querySelectorAll("#d-audit")) say(shown, recordsOf(row));
}

function addRows(rows) {  // the oldest first
  for (const row of rows) {
    const key = `${row.request_id} ${row.started_at}`;
    if (known.seen.has(key)) continue;
    known.seen.add(key);
    row.key = key;
    stats.rows += 1;
    (isHeld() ? known.pending : known.rows).unshift(row);
  }
  trim(isHeld() ? known.pending : known.rows);
  if (known.seen.size > KEEP * 4) known.seen = new Set([...known.rows, ...known.pending].map((row) => row.key));
}

// Nothing moves under a pointer that is about to choose a row.
const HOLD_SECONDS = 3;
let holding = 0;
const isHeld = () => known.paused || known.held;

function hold(event) {
  if (event.pointerType !== "mouse") return;
  known.held = true;
  clearTimeout(holding);
  holding = setTimeout(letGo, HOLD_SECONDS * 1000);
}

function letGo() {
  clearTimeout(holding);
  known.held = false;
  catchUp();
}

function catchUp() {
  if (!isHeld()) {
    known.rows.unshift(...known.pending);
    known.pending = [];
    trim(known.rows);
  }
  dirty.add("rows");
  schedule();
}

function trim(rows) { if (rows.length > KEEP) rows.length = KEEP; }

function wanted() {
  const words = $("f-text").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const status = $("f-status").value, installation = $("f-installation").value.trim(), writes = $("f-writes").checked;
  $("f-clear").hidden = !(words.length || status || installation || writes);
  return (row) => {
    if (writes && !row.changes_state) return false;
    if (installation && !(row.installation || "").toLowerCase().startsWith(installation.toLowerCase())) return false;
    if (status === "bad" && ending(row) === "ok") return false;
    if (status === "proxy" && row.origin !== "proxy") return false;
    if (status && !["bad", "proxy"].includes(status) && Math.floor(row.status / 100) !== Number(status)) return false;
    if (!words.length) return true;
    const text = `${row.method} ${row.path} ${row.operation} ${row.status} ${row.code || ""} ${row.request_id} ${row.trace_id} ${row.peer} ${row.would_refuse || ""}`.toLowerCase();
    return words.every((word) => text.includes(word));
  };
}

function drawRows() {
  const top = view[0]?.key, scrolled = list.scrollTop;
  view = known.rows.filter(wanted());
  // Whoever has scrolled down is reading: what is new is put in above without moving the text.
  if (scrolled > 0 && top) {
    const shift = view.findIndex((row) => row.key === top);
    if (shift > 0) list.scrollTop = scrolled + shift * ROW;
  }
  const height = `${view.length * ROW}px`;
  if ($("rows-height").style.height !== height) $("rows-height").style.height = height;
  bindRows();
  const empty = $("rows-empty");
  empty.hidden = view.length > 0;
  if (!view.length) say(empty, known.rows.length ? "No request in memory fits the filter." : "Waiting for the first request.");
  const shown = view.length === known.rows.length ? plural(view.length, "request") : `${view.length} of ${plural(known.rows.length, "request")}`;
  const aside = known.leftOut ? `; ${known.leftOut.toLocaleString("en")} more counted but not listed, to keep up` : "";
  const held = known.paused ? "Paused" : known.pending.length ? "Held still under the pointer" : "";
  say($("rows-note"), held ? `${held}, ${plural(known.pending.length, "request")} waiting` : `${shown}, the last ${KEEP} are kept${aside}`);
  say($("rows-missed"), known.missed ? `This page was too slow for ${plural(known.missed, "request")}` : "");
}

function bindRows() {
  const height = list.clientHeight, first = Math.max(0, Math.floor(list.scrollTop / ROW) - 2);
  const needed = Math.ceil(height / ROW) + 5;
  while (pool.length < needed) pool.push(newRow(pool.length));
  let active = null;
  for (let index = 0; index < pool.length; index++) {
    // A row of the list always sits in the same element while it is in sight.
    const at = first + ((index - first) % pool.length + pool.length) % pool.length;
    const line = pool[index], row = at < first + needed ? view[at] : undefined;
    if (!row) {
      if (!line.element.hidden) line.element.hidden = true;
      line.row = null;
      continue;
    }
    if (line.at !== at) {
      line.element.style.transform = `translateY(${at * ROW}px)`;
      line.at = at;
      mark(line.element, "aria-posinset", at + 1);
    }
    if (line.row !== row) fill(line, row);
    mark(line.element, "aria-setsize", view.length);
    mark(line.element, "aria-selected", String(row.key === known.selected));
    if (row.key === known.selected) active = line.element.id;
    if (line.element.hidden) line.element.hidden = false;
  }
  mark(list, "aria-activedescendant", active);
}

function newRow(index) {
  const parts = {};
  const part = (tag, name) => (parts[name] = make(tag, tag === "bdi" ? {} : { class: name }));
  const element = make("div", { class: "request", role: "option", id: `request-${index}`, hidden: true },
    part("span", "time"),
    make("span", { class: "what" }, part("span", "method"), make("span", { class: "path" }, part("bdi", "path")), part("span", "operation")),
    make("span", {}, (parts.pill = make("span", { class: "pill" }, part("span", "status"), part("span", "reason")))),
    part("span", "installation"), part("span", "took"));
  list.append(element);
  const line = { element, parts, row: null, at: -1 };
  element.addEventListener("click", () => { if (line.row) { select(line.row.key); openDrawer(line.row); } });
  return line;
}

function fill(line, row) {
  stats.bound += 1;
  line.row = row;
  const { parts } = line;
  say(parts.time, clock(row.started_at));
  say(parts.method, row.method);
  say(parts.path, legible(row.path) || "(no path)");
  mark(parts.path, "title", row.path);
  say(parts.operation, row.operation === "unknown" ? "" : row.operation);
  say(parts.status, String(row.status));
  say(parts.reason, row.code ? ` ${row.code}` : "");
  mark(parts.pill, "data-tone", ending(row));
  mark(parts.pill, "title", row.code);
  say(parts.installation, row.installation ? short(row.installation) : "");
  say(parts.took, duration(row.duration));
  mark(parts.took, "data-slow", row.duration > 1);
  mark(line.element, "data-writes", row.changes_state);
}

// The end of a path says more than the middle of an identifier.
function legible(path) { return path.replace(/([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/gi, "$1…"); }

function short(id) { return id.length > 13 ? `${id.slice(0, 8)}…` : id; }

list.addEventListener("pointermove", hold);
list.addEventListener("pointerdown", hold);
list.addEventListener("pointerleave", letGo);
list.addEventListener("scroll", () => { dirty.add("rows"); schedule(); }, { passive: true });

function select(key) {
  known.selected = key;
  dirty.add("rows");
  schedule();
}

// A key may come before the frame that shows what the one before it has done.
function settle() { if (dirty.delete("rows")) drawRows(); }

function move(step) {
  settle();
  if (!view.length) return;
  const at = view.findIndex((row) => row.key === known.selected);
  const next = at < 0 ? 0 : Math.max(0, Math.min(view.length - 1, at + step));
  const top = next * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  select(view[next].key);
  if (known.open) openDrawer(view[next]);
}

list.addEventListener("keydown", (event) => {
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -KEEP, End: KEEP };
  if (event.key in steps) { event.preventDefault(); move(steps[event.key]); }
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); openSelected(); }
});

function openSelected() {
  settle();
  const row = view.find((each) => each.key === known.selected) || view[0];
  if (row) { select(row.key); openDrawer(row, { focus: true }); }
}

for (const id of ["f-text", "f-status", "f-installation", "f-writes"]) {
  $(id).addEventListener("input", () => { list.scrollTop = 0; dirty.add("rows"); schedule(); });
}
$("filter").addEventListener("submit", (event) => { event.preventDefault(); list.focus(); });
$("f-clear").addEventListener("click", clearFilter);
function clearFilter() {
  $("f-text").value = $("f-status").value = $("f-installation").value = "";
  $("f-writes").checked = false;
  dirty.add("rows");
  schedule();
}

$("pause").addEventListener("click", pause);
function pause() {
  known.paused = !known.paused;
  mark($("pause"), "aria-pressed", String(known.paused));
  say($("pause"), known.paused ? "Go on" : "Pause");
  catchUp();
}

// -- one request --------------------------------------------------------------------------------

function facts(list, pairs) {
  list.replaceChildren();
  for (const [name, value, kind] of pairs) {
    if (value === null || value === undefined || value === "") continue;
    const held = make("dd", { class: kind });
    held.append(value instanceof Node ? value : String(value));
    list.append(make("dt", { text: name }), held);
  }
  return list;
}

function recordsOf(row) {
  if (row.audit_seq === null && row.intent_seq === null) return "none is known";
  const outcome = row.audit_seq === null ? "outcome not written yet" : `outcome ${row.audit_seq}`;
  return row.intent_seq === null ? outcome : `intent ${row.intent_seq} · ${outcome}`;
}

function story(row) {
  if (row.code === "caller-gone") return "The caller left before the answer was complete.";
  if (row.origin === "proxy") {
    if (row.status < 400) return "Answered by the proxy itself.";
    if (!row.attempts) return "Refused by the proxy; the API has not seen it.";
    return row.changes_state ? "No answer of the API could be passed on: it may have acted." : "No answer of the API could be passed on.";
  }
  const tries = row.attempts > 1 ? `, at attempt ${row.attempts}` : "";
  return `Answered by the API${tries}.`;
}

function waterfall(row) {
  const box = make("div", { class: "waterfall" }), whole = row.duration || 1e-9;
  const sent = row.sent_after ?? row.duration, first = row.first_byte ?? 0;
  const parts = [
    ["token wait", "token", row.token_wait],
    // Reading, deciding, recording; and whatever attempts there were before the last one.
    ["in the proxy", "own", Math.max(0, sent - row.token_wait)],
    ["first byte", "first", row.first_byte],
    ["body, end", "body", row.first_byte === null ? null : Math.max(0, row.duration - sent - first)],
  ];
  let at = 0;
  for (const [name, kind, seconds] of parts) {
    if (seconds === null) continue;
    const bar = make("i", { class: kind });
    bar.style.left = `${Math.min(99, 100 * at / whole)}%`;
    bar.style.width = `${Math.max(0, Math.min(100, 100 * seconds / whole))}%`;
    at += seconds;
    box.append(make("span", { class: "muted", text: name }), make("span", { class: "track" }, bar), make("span", { class: "ms", text: duration(seconds) }));
  }
  box.append(make("span", { class: "muted", text: "in all" }), make("span"), make("span", { class: "ms", text: duration(row.duration) }));
  return box;
}

function copyable(text) {
  const button = make("button", { type: "button", class: "link code", text, title: "Copy" });
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text); toast("Copied."); } catch { toast("The browser does not let this page copy."); }
  });
  return button;
}

function openDrawer(row, { focus = false } = {}) {
  const drawer = $("drawer");
  known.open = row;
  const close = make("button", { type: "button", class: "small", text: "Close", "aria-keyshortcuts": "Escape" });
  close.addEventListener("click", closeDrawer);
  const parts = [
    make("header", {},
      make("span", { class: "pill", "data-tone": ending(row), text: row.code ? `${row.status} ${row.code}` : String(row.status) }),
      make("span", { class: "muted", text: `${clock(row.started_at, true)}` }), close),
    make("p", { class: "target", text: `${row.method} ${row.path}` }),
    make("p", { class: "story muted", text: story(row) }),
  ];
  const code = row.code && known.facts?.codes[row.code];
  if (code) parts.push(make("p", { class: "meaning", text: `${code.title}. ${code.meaning}` }));
  if (row.would_refuse) parts.push(make("p", { class: "meaning", text: `The rule ${row.would_refuse} would refuse this, if the policy were enforced.` }));
  parts.push(make("h3", { text: "Time" }), waterfall(row));

  let only = null;
  if (row.installation) {
    only = make("button", { type: "button", class: "link code", text: row.installation, title: "Show only this installation" });
    only.addEventListener("click", () => { $("f-installation").value = row.installation; dirty.add("rows"); schedule(); });
  }
  parts.push(make("h3", { text: "Request" }), facts(make("dl"), [
    ["Operation", row.operation, "code"],
    ["Effect", row.changes_state ? "changes state" : "reads"],
    ["Installation", only],
    ["Attempts", row.attempts],
    ["Body", `${size(row.bytes_in)} in, ${size(row.bytes_out)} out`],
    ["Repeats", row.duplicate_of ? copyable(row.duplicate_of) : null],
    ["Request id", copyable(row.request_id)],
    ["Trace id", copyable(row.trace_id)],
    ["Audit records", known.status?.audit || row.audit_seq !== null ? make("span", { id: "d-audit", class: "code", text: recordsOf(row) }) : null],
    ["Caller", row.caller ? `${row.caller}, ${row.peer}` : row.peer, "code"],
    ["Listener", row.listener, "code"],
  ]));
  parts.push(make("h3", { text: "Credential" }));
  if (row.token) {
    parts.push(facts(make("dl"), [["Fingerprint", row.token, "code"], ["Generation", row.token_generation]]));
  } else parts.push(make("p", { class: "muted", text: row.attempts ? "The app's own signature." : "None was needed or made." }));
  parts.push(make("h3", { text: "Headers on the way to the API" }));
  if (row.header_edits?.length) {
    const chips = make("div", { class: "chips" });
    for (const edit of row.header_edits) {
      const words = { "+": "added", "-": "removed", "~": "changed" };
      chips.append(make("span", { class: "chip", "data-sign": edit[0], title: words[edit[0]], text: `${edit[0] === "-" ? "−" : edit[0]} ${edit.slice(1)}` }));
    }
    parts.push(chips);
  } else parts.push(make("p", { class: "muted", text: row.attempts ? "Not noted: no console was open at that moment." : "It was never sent." }));
  const explain = make("button", { type: "button", text: "Explain such a request", "aria-keyshortcuts": "e" });
  explain.addEventListener("click", () => explainRow(row));
  parts.push(make("div", { class: "actions" }, explain));
  drawer.replaceChildren(...parts);
  drawer.hidden = false;
  drawer.scrollTop = 0;
  if (focus) drawer.focus();
}

function closeDrawer() {
  known.open = null;
  $("drawer").hidden = true;
  list.focus();
}

function explainRow(row) {
  show("explain");
  $("e-method").value = row.method;
  $("e-url").value = row.path;
  $("e-tag").value = row.installation || "";
  $("e-form").requestSubmit();
}

// -- installations ------------------------------------------------------------------------------

const lines = new Map();
const SHOWN_MOST = 200;

function drawInstallations() {
  const status = known.status, found = new Map();
  const entry = (id) => found.get(id) || found.set(id, { id }).get(id);
  if (status) {
    for (const each of status.tokens) Object.assign(entry(each.installation ?? ""), { token: each });
    for (const id of status.blocked) entry(id).blocked = true;
  }
  for (const [id, tally] of known.tallies) entry(id).tally = tally;
  say($("count-installations"), found.size ? String(found.size) : "");
  if (known.tab !== "installations") return;
  const word = $("i-text").value.trim().toLowerCase();
  const all = [...found.values()].filter((each) => `${each.id || "app"} ${each.token?.organization || ""} ${state(each)} ${each.tally?.last_error || ""}`.toLowerCase().includes(word));
  all.sort((one, other) => (other.tally?.requests || 0) - (one.tally?.requests || 0) || one.id.localeCompare(other.id));
  const shown = all.slice(0, SHOWN_MOST), body = $("i-rows");
  for (const [id, line] of lines) if (!shown.some((each) => each.id === id)) { line.element.remove(); lines.delete(id); }
  shown.forEach((each, index) => {
    const line = lines.get(each.id) || newInstallation(each.id);
    if (body.children[index] !== line.element) body.insertBefore(line.element, body.children[index] || null);
    fillInstallation(line, each);
  });
  $("i-empty").hidden = all.length > 0;
  const datalist = $("known-installations");
  if (datalist.childElementCount !== Math.min(found.size, SHOWN_MOST)) {
    datalist.replaceChildren(...[...found.keys()].filter(Boolean).slice(0, SHOWN_MOST).map((id) => make("option", { value: id })));
  }
  const since = known.since ? ` Requests are counted since ${clock(known.since)}.` : "";
  say($("i-note"), `${plural(all.length, "installation")}${all.length > SHOWN_MOST ? `, the busiest ${SHOWN_MOST} shown` : ""}.${since}`);
}

function state(each) { return each.blocked ? "blocked" : each.token ? each.token.state : "no token"; }

function newInstallation(id) {
  const cell = (name) => make("td", { class: name });
  const parts = { id: cell(""), state: cell(""), left: cell("num"), requests: cell("num"), error: cell(""), acts: cell("acts") };
  const drop = make("button", { type: "button", class: "small", text: "Drop token", "aria-label": `Drop the token of ${id}` });
  const block = make("button", { type: "button", class: "small danger", text: "Block" });
  const only = make("button", { type: "button", class: "link code", text: id || "the app itself", title: "Show its requests" });
  const organization = make("small"), pill = make("span", { class: "pill" }), print = make("small", { class: "code" });
  const share = make("small"), error = make("span"), ago = make("small");
  const requests = make("span");
  parts.id.append(only, organization);
  parts.state.append(pill, print);
  parts.requests.append(requests, share);
  parts.error.append(error, ago);
  if (id) parts.acts.append(drop, block);
  const line = { element: make("tr", {}, ...Object.values(parts)), parts, pill, print, organization, requests, share, error, ago, block, drop };
  drop.addEventListener("click", () => throwSwitch(`/tokens/${encodeURIComponent(id)}/drop`, drop));
  block.addEventListener("click", () => {
    if (line.blocked) return throwSwitch(`/installations/${encodeURIComponent(id)}/unblock`, block);
    if (block.hasAttribute("data-sure")) { block.removeAttribute("data-sure"); return throwSwitch(`/installations/${encodeURIComponent(id)}/block`, block); }
    block.setAttribute("data-sure", "");
    say(block, "Really block?");
    setTimeout(() => block.removeAttribute("data-sure"), 4000);
  });
  only.addEventListener("click", () => { if (id) { clearFilter(); $("f-installation").value = id; } show("traffic"); });
  lines.set(id, line);
  return line;
}

const STATE_TONES = { fresh: "ok", due: "client", dead: "failed", blocked: "failed", "no token": null };
function fillInstallation(line, each) {
  const { token, tally } = each;
  say(line.organization, token?.organization ? `organization ${token.organization}` : "");
  const word = state(each);
  say(line.pill, word);
  mark(line.pill, "data-tone", STATE_TONES[word]);
  say(line.print, token ? `${token.fingerprint} · generation ${token.generation}` : "");
  const passed = known.statusAt ? (performance.now() - known.statusAt) / 1000 : 0;
  say(line.parts.left, token ? (token.expires_in - passed > 0 ? span(token.expires_in - passed) : "expired") : "–");
  say(line.requests, tally ? count(tally.requests) : "–");
  say(line.share, tally?.errors ? `${count(tally.errors)} not well` : "");
  say(line.error, tally?.last_error || "–");
  say(line.ago, tally?.last_error_at ? `${span(now() - tally.last_error_at)} ago` : "");
  line.blocked = Boolean(each.blocked);
  if (!line.block.hasAttribute("data-sure")) say(line.block, each.blocked ? "Unblock" : "Block");
  mark(line.block, "aria-label", `${each.blocked ? "Unblock" : "Block"} ${each.id}`);
  if (!token !== line.drop.disabled) line.drop.disabled = !token;
}
$("i-text").addEventListener("input", () => { dirty.add("installations"); schedule(); });

// -- the proxy itself ---------------------------------------------------------------------------

const KEY_TONES = { active: "ok", refused: "failed", standby: null };
const STATES = { ready: "ok", starting: "client", draining: "client", stopped: "failed", gone: "failed" };

function drawStatus() {
  const status = known.status;
  if (!status) return;
  const degraded = status.degraded?.length && status.state === "ready" ? status.degraded.join(", ").replaceAll("-", " ") : "";
  say($("state"), status.state === "gone" ? "does not answer" : degraded ? `ready, ${degraded}` : status.state);
  mark($("state"), "data-tone", degraded ? "client" : STATES[status.state] || null);
  say($("where-app"), `${status.version} · up ${span(status.uptime)}`);
  say($("where-upstream"), `→ ${status.upstream}`);
  const states = { fresh: 0, due: 0, dead: 0 };
  for (const each of status.tokens) states[each.state] += 1;
  say($("n-tokens"), count(status.tokens.length));
  say($("n-tokens-note"), `${states.fresh} fresh · ${states.due} due · ${states.dead} dead`);
  known.inFlight = status.in_flight;
  say($("n-flight"), count(status.in_flight));
  say($("n-flight-note"), `${plural(status.connections.upstream_active, "connection")} to the API`);
  if (known.tab !== "proxy") return;

  facts($("p-upstream"), [
    ["API", status.upstream, "code"],
    ["API version", status.api_version, "code"],
    ["Connections", `${status.connections.upstream_active} in use, ${status.connections.upstream_idle} idle`],
    ["Circuit", status.circuit],
    ["Mints under way", status.mints_under_way],
    ["Clock skew", `${status.clock_skew.toFixed(2)} s`],
  ]);
  $("p-keys").replaceChildren(...Object.entries(status.keys).map(([print, word]) => make("li", {},
    make("span", { class: "code", text: print }), make("span", { class: "pill", "data-tone": KEY_TONES[word], text: word }))));
  $("p-listeners").replaceChildren(...status.listeners.map((address, index) => {
    const told = known.facts?.listeners[index];
    return make("li", {}, make("span", { class: "code", text: address }), make("small", { class: "muted", text: told ? serves(told) : "" }));
  }));
  facts($("p-process"), [
    ["Version", status.version], ["App", status.app, "code"], ["Up for", span(status.uptime)],
    ["Connections of callers", status.connections.callers],
    ["Python", known.facts ? `${known.facts.python} on ${known.facts.system}` : null],
  ]);
  const audit = status.audit;
  facts($("p-audit"), audit ? [
    ["State", audit.writable ? "written" : `cannot be written: ${audit.error}`],
    ["Newest record", audit.seq], ["Its hash", audit.hash && `${audit.hash}…`, "code"],
    ["File", audit.file, "code"], ["Waiting to be written", audit.queue],
    ["Requests without a record", audit.unrecorded],
  ] : [["State", "off: audit.directory is not set"]]);
  const policy = status.policy, refused = { ...policy.would_refuse, ...known.wouldRefuse };
  facts($("p-policy"), [
    ["Mode", policy.mode === "report" ? "report: nothing is refused by it" : policy.mode],
    ["Read only", policy.read_only ? "yes" : "no"],
    ["Default", policy.default], ["/app", policy.app_endpoints],
  ]);
  const rules = [...(policy.read_only ? [{ name: "read-only", action: "deny", operations: ["whatever changes state"] }] : []), ...(policy.rules || [])];
  if (policy.default === "deny" || !rules.length) rules.push({ name: "default", action: policy.default });
  $("p-rules").replaceChildren(...rules.map((rule) => make("tr", {},
    make("td", { class: "code", text: rule.name }),
    make("td", {}, make("span", { class: "pill", "data-tone": rule.action === "deny" ? "refused" : "ok", text: rule.action })),
    make("td", { text: about(rule) }),
    make("td", { class: "num", text: String(refused[rule.name] || 0) }))));
}

function serves(listener) {
  const words = [listener.installation ? `for ${listener.installation}` : `tags: ${listener.tags.join(", ")}`];
  if (listener.untagged !== "refuse") words.push(`untagged: ${listener.untagged}`);
  if (listener.allow.length) words.push(plural(listener.allow.length, "installation"));
  if (listener.exposed) words.push("exposed");
  return words.join("; ");
}

function about(rule) {
  const words = ["operations", "methods", "paths", "installations", "listeners"]
    .filter((name) => rule[name]?.length).map((name) => `${name === "operations" ? "" : `${name} `}${rule[name].join(", ")}`);
  return words.join("; ") || "everything else";
}

function showFacts() {
  const told = known.facts;
  say($("e-tag-name"), told.installation_header);
  $("e-listener").replaceChildren(...told.listeners.map(({ bind }) => make("option", { value: bind, text: bind })));
  drawConfig();
  dirty.add("status");
  schedule();
}

function drawConfig() {
  if (!known.facts) return;
  const word = $("c-text").value.trim().toLowerCase(), changed = $("c-changed").checked;
  $("c-rows").replaceChildren(...known.facts.config
    .filter((each) => (!changed || each.changed) && `${each.key} ${each.value}`.toLowerCase().includes(word))
    .map((each) => make("tr", { class: each.changed ? "is-changed" : "is-default" },
      make("td", { class: "code", text: each.key }), make("td", { class: "code", text: each.value }))));
}
$("c-text").addEventListener("input", drawConfig);
$("c-changed").addEventListener("input", drawConfig);

// -- explain ------------------------------------------------------------------------------------

$("e-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const headers = $("e-headers").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const tag = $("e-tag").value.trim();
  if (tag) headers.unshift(`${known.facts?.installation_header || "X-ICR-Installation-Id"}: ${tag}`);
  const question = { method: $("e-method").value.trim().toUpperCase(), url: $("e-url").value.trim(), headers };
  if ($("e-listener").value && !/^https?:/i.test(question.url)) question.listener = $("e-listener").value;
  const box = $("e-result");
  try {
    const response = await ask("/explain", { method: "POST", body: JSON.stringify(question), headers: { "Content-Type": "application/json" } });
    const told = await response.json();
    if (!response.ok) return box.replaceChildren(make("p", { class: "verdict", "data-tone": "client", text: told.message || response.statusText }));
    const tone = { forwarded: "ok", refused: "failed", answered: "client" }[told.verdict];
    const parts = [make("p", { class: "verdict", "data-tone": tone, text: told.sentence }), facts(make("dl"), told.rows.map(([name, text]) => [name, text]))];
    if (told.headers.length) {
      parts.push(make("ul", { class: "edits", "aria-label": "Headers" }, ...told.headers.map((each) => {
        const words = { "+": "added: ", "-": "removed: ", " ": "" };
        return make("li", { "data-sign": each.edit }, make("span", { class: "unseen", text: words[each.edit] }), `${each.edit === "-" ? "−" : each.edit} ${each.name}: ${each.value}`);
      })));
    }
    box.replaceChildren(...parts);
  } catch { box.replaceChildren(make("p", { class: "verdict", "data-tone": "failed", text: "The proxy does not answer." })); }
});

// -- views, theme, keyboard ---------------------------------------------------------------------

const TABS = ["traffic", "installations", "proxy", "explain", "config"];
function show(name, { focus = false } = {}) {
  known.tab = name;
  for (const each of TABS) {
    const tab = $(`tab-${each}`), chosen = each === name;
    mark(tab, "aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    $(each).hidden = !chosen;
    if (chosen && focus) tab.focus();
  }
  dirty.add("charts").add("rows").add("installations").add("status");
  if (name === "config") loadFacts();
  schedule();
}
for (const name of TABS) $(`tab-${name}`).addEventListener("click", () => show(name));
document.querySelector(".tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step) show(TABS[(TABS.indexOf(known.tab) + step + TABS.length) % TABS.length], { focus: true });
  if (event.key === "Home") show(TABS[0], { focus: true });
  if (event.key === "End") show(TABS.at(-1), { focus: true });
});

const THEMES = ["system", "light", "dark"];
let theme = "system";
try { theme = localStorage.getItem("theme") || "system"; } catch { /* storage may be closed */ }
function paint() {
  mark(document.documentElement, "data-theme", theme === "system" ? null : theme);
  say($("theme"), { system: "◐", light: "☀", dark: "☾" }[theme]);
  mark($("theme"), "aria-label", { system: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" }[theme]);
  mark($("theme"), "title", $("theme").getAttribute("aria-label"));
  readPalette();
  dirty.add("charts");
  schedule();
}
function nextTheme() {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  try { localStorage.setItem("theme", theme); } catch { /* then for this page only */ }
  paint();
}
$("theme").addEventListener("click", nextTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

$("help-open").addEventListener("click", () => $("help").showModal());
$("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken($("gate-token").value);
  $("gate-token").value = "";
  listen();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const field = event.target.closest?.("input, select, textarea");
  if (event.key === "Escape") {
    if (field) { event.preventDefault(); field.blur(); }  // or a search field would be emptied
    else if (known.open) closeDrawer();
    return;
  }
  if (field) return;
  const keys = {
    "?": () => $("help").showModal(),
    "/": () => { const id = { traffic: "f-text", installations: "i-text", config: "c-text", explain: "e-url" }[known.tab]; if (id) $(id).focus(); },
    p: pause, j: () => move(1), k: () => move(-1), t: nextTheme,
    w: () => { $("f-writes").checked = !$("f-writes").checked; dirty.add("rows"); schedule(); },
    e: () => { if (known.open) explainRow(known.open); else show("explain"); },
    Enter: () => { if (known.tab === "traffic" && event.target === document.body) openSelected(); },
  };
  TABS.forEach((name, index) => { keys[index + 1] = () => show(name); });
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  dirty.add("numbers").add("charts").add("rows").add("installations").add("status");
  schedule();
});

paint();
show("traffic");
listen();
loadStatus();
