// The dashboard: shows what /api/v1/status says, each second, and sends changes of backends.
// What comes over the wire is only ever set as text. Nothing is drawn again that has not changed.
"use strict";

const HISTORY_SECONDS = 300;
const STALE_AFTER_MS = 3000;
const RETRY_FIRST_MS = 500;
const RETRY_MOST_MS = 8000;
const SILENCE_MS = 15000;
const EVENTS_MAX = 100;
const STREAM_CHARS_MAX = 8 * 1024 * 1024;
const ANNOUNCE_EVERY_MS = 4000;
const TOKEN_KEY = "corelane-token";
const THEME_KEY = "corelane-theme";

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

/* ---- small things ---- */

function make(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function draw(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  return node;
}

function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

function attribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

function count(value) {
  return value == null ? "–" : whole.format(value);
}

function rate(value) {
  if (value == null) return "–";
  return value > 0 && value < 10 ? value.toFixed(1) : whole.format(value);
}

function seconds(value) {
  if (value == null) return "–";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${(value * 1e3).toPrecision(value < 0.1 ? 2 : 3)} ms`;
  return `${value.toFixed(2)} s`;
}

function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

function span(total) {
  const left = Math.max(0, Math.floor(total));
  if (left < 60) return `${left} s`;
  if (left < 3600) return `${Math.floor(left / 60)} min`;
  if (left < 86400) return `${Math.floor(left / 3600)} h ${Math.floor((left % 3600) / 60)} min`;
  return `${Math.floor(left / 86400)} d ${Math.floor((left % 86400) / 3600)} h`;
}

const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });

function shape(state) {
  const svg = draw("svg", { class: "shape", "aria-hidden": "true" });
  svg.append(draw("use", { href: `#s-${state}` }));
  return svg;
}

/* ---- plots ---- */

const TOP = 6, BOTTOM = 16;

class Plot {
  // `series` reads each curve's value of a point, `show` writes a value.
  constructor(id, series, show) {
    Object.assign(this, { series, show, points: [], width: 300, height: 112, held: null });
    this.figure = $(id);
    this.note = this.figure.querySelector(".note");
    this.svg = draw("svg", { role: "img" });
    this.grid = draw("g");
    this.area = draw("path", { class: "area" });
    this.curves = series.map((_, at) => draw("path", { class: at ? "curve b" : "curve" }));
    this.cross = draw("path", { class: "cross" });
    this.labels = draw("g");
    this.svg.append(this.grid, this.area, ...this.curves, this.labels, this.cross);
    this.figure.append(this.svg);
    new ResizeObserver(() => this.resize()).observe(this.svg);
    this.svg.addEventListener("pointermove", (event) => this.hold(event));
    this.svg.addEventListener("pointerleave", () => this.hold(null));
  }

  resize() {
    const box = this.svg.getBoundingClientRect();
    if (box.width < 10) return;
    [this.width, this.height] = [box.width, box.height];
    this.svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    this.render();
  }

  hold(event) {
    this.held = event ? (event.clientX - this.svg.getBoundingClientRect().left) / this.width : null;
    this.renderHeld();
  }

  update(points, now) {
    [this.points, this.now] = [points, now];
    this.render();
  }

  x(point) { return this.width * (1 - (this.now - point.time) / 1000 / HISTORY_SECONDS); }
  y(value) { return TOP + (this.height - TOP - BOTTOM) * (1 - value / this.max); }

  render() {
    if (!this.now) return;
    const known = this.points.flatMap((point) => this.series.map((read) => read(point) ?? 0));
    this.max = ceiling(Math.max(0, ...known)) || this.floor();
    this.renderGrid();
    this.series.forEach((read, at) => attribute(this.curves[at], "d", this.path(read)));
    attribute(this.area, "d", this.series.length > 1 ? "" : this.path(this.series[0], true));
    const last = this.points[this.points.length - 1];
    const values = this.series.map((read) => this.show(last ? read(last) : null));
    text(this.figure.querySelector(".now"), values.join(" / "));
    const name = this.figure.querySelector(".name").textContent.replace(/\s+/g, " ").trim();
    attribute(this.svg, "aria-label",
      `${name}: now ${values.join(" and ")}, at most ${this.show(Math.max(0, ...known))} in five minutes`);
    this.renderHeld();
  }

  floor() { return this.show === seconds ? 0.001 : 10; }

  // A gap of more than three seconds, or no value, breaks the curve.
  path(read, closed) {
    let path = "", before = null, from = 0;
    const close = () => { if (closed && before) path += `V${this.y(0).toFixed(1)}H${from.toFixed(1)}Z`; };
    for (const point of this.points) {
      const value = read(point);
      if (value == null) { close(); before = null; continue; }
      const [x, y] = [this.x(point), this.y(value)];
      const joined = before && point.time - before.time < 3000;
      if (!joined) { close(); from = x; }
      // A point alone is a dot.
      path += `${joined ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${joined ? "" : "h0"}`;
      before = point;
    }
    close();
    return path;
  }

  renderGrid() {
    const key = `${this.width} ${this.height} ${this.max}`;
    if (this.drawn === key) return;
    this.drawn = key;
    const lines = [0, 0.5, 1].map((part) => {
      const y = Math.round(this.y(this.max * part)) + 0.5;
      const label = draw("text", { x: 0, y: y - 3 });
      label.textContent = part ? this.show(this.max * part) : "";
      return { line: draw("path", { class: "grid", d: `M0 ${y}H${this.width}` }), label };
    });
    const minutes = this.width < 360 ? [4, 2, 0] : [5, 4, 3, 2, 1, 0];
    const marks = minutes.map((minute) => {
      const x = this.width * (1 - minute / 5);
      const anchor = minute === 5 ? "start" : minute === 0 ? "end" : "middle";
      const label = draw("text", { x, y: this.height - 3, "text-anchor": anchor });
      label.textContent = minute ? `−${minute} min` : "now";
      return label;
    });
    this.grid.replaceChildren(...lines.map((it) => it.line), ...marks);
    this.labels.replaceChildren(...lines.map((it) => it.label));
  }

  renderHeld() {
    const point = this.held == null ? null : nearest(this.points, this.held, (it) => this.x(it) / this.width);
    if (!point) {
      attribute(this.cross, "d", "");
      text(this.note, this.aside || "");
      return;
    }
    const x = this.x(point).toFixed(1);
    attribute(this.cross, "d", `M${x} ${TOP}V${this.height - BOTTOM}`);
    text(this.note, `${clock(point.time)}  ${this.series.map((read) => this.show(read(point))).join(" / ")}`);
  }
}

function nearest(points, wanted, at) {
  let best = null;
  for (const point of points) {
    if (!best || Math.abs(at(point) - wanted) < Math.abs(at(best) - wanted)) best = point;
  }
  return best;
}

// The next of 1, 2, 5, 10, 20 … above a value.
function ceiling(value) {
  if (!(value > 0)) return 0;
  const ten = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((part) => part * ten).find((top) => top >= value) ?? value;
}

/* ---- tables: rows have keys, cells have readers, and only what differs is written ---- */

class Table {
  // A column: { name, label, kind, read(item), value(item), fill(cell, item), first }.
  constructor(id, columns, options = {}) {
    Object.assign(this, { columns, rows: new Map(), sort: null, ...options });
    this.table = $(id);
    const heads = columns.map((column) => this.head(column));
    const row = make("tr", { role: "row" }, ...heads);
    this.table.tHead.append(row);
  }

  head(column) {
    const cell = make("th", { role: "columnheader", scope: "col", class: column.kind || "" });
    if (!column.value || !this.sortable) { cell.append(column.label || ""); return cell; }
    const button = make("button", { type: "button" }, column.label);
    button.addEventListener("click", () => this.sortBy(column.name));
    cell.append(button);
    column.cell = cell;
    return cell;
  }

  sortBy(name, direction) {
    const column = this.columns.find((it) => it.name === name);
    const same = this.sort && this.sort.name === name;
    if (!column) this.sort = null;
    else if (direction) this.sort = { name, direction };
    else if (same && this.sort.direction !== column.first) this.sort = null;
    else this.sort = { name, direction: same ? -column.first : column.first };
    for (const it of this.columns.filter((it) => it.cell)) {
      const direction = this.sort && this.sort.name === it.name ? this.sort.direction : 0;
      attribute(it.cell, "aria-sort", direction ? (direction > 0 ? "ascending" : "descending") : null);
    }
    this.onSort?.(this.sort);
  }

  ordered(items) {
    if (!this.sort) return items;
    const { value } = this.columns.find((column) => column.name === this.sort.name);
    const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    return items.map((item, at) => [item, at])
      .sort(([a, i], [b, j]) => this.sort.direction * compare(value(a), value(b)) || i - j)
      .map(([item]) => item);
  }

  body(key) {
    const found = [...this.table.tBodies].find((body) => body.dataset.key === key);
    if (found) return found;
    const body = make("tbody", { role: "rowgroup" });
    body.dataset.key = key;
    this.table.append(body);
    return body;
  }

  // Shows these items, in this order, in one body.
  fill(body, items, keyOf) {
    const rows = items.map((item) => this.row(`${body.dataset.key} ${keyOf(item)}`, item));
    const wanted = new Set(rows);
    const heading = body.querySelector(".pool");
    for (const row of [...body.rows]) if (row !== heading && !wanted.has(row)) this.drop(row);
    // Nothing moves under a pointer or the focus, unless it was asked for.
    const held = body.matches(":hover") || body.contains(document.activeElement);
    let after = heading;
    rows.forEach((row) => {
      const place = after ? after.nextSibling : body.firstChild;
      if (row.parentNode !== body || (place !== row && (!held || this.sorted))) body.insertBefore(row, place);
      after = row;
    });
  }

  row(key, item) {
    let row = this.rows.get(key);
    if (!row) {
      row = make("tr", { role: "row" });
      row.dataset.key = key;
      for (const column of this.columns) {
        const cell = make(column.header ? "th" : "td", { role: column.header ? "rowheader" : "cell", class: column.kind || "" });
        if (column.header) cell.scope = "row";
        else if (column.label) cell.dataset.label = column.label;
        column.build?.(cell, row);
        row.append(cell);
      }
      this.rows.set(key, row);
    }
    row.item = item;
    this.columns.forEach((column, at) => column.fill(row.cells[at], item, row));
    return row;
  }

  drop(row) {
    this.rows.delete(row.dataset.key);
    row.remove();
  }
}

const plain = (read) => (cell, item) => text(cell, read(item));

const ATTENTION = ["down", "ejected", "breaker-open", "trial", "unknown", "draining", "maintenance", "up"];
const KNOWN_STATES = new Set(ATTENTION);

const backendColumns = [
  {
    name: "state", label: "State", kind: "two state-cell", first: 1, value: (it) => ATTENTION.indexOf(it.state),
    build: (cell) => { cell.append(make("span", { class: "state" }, shape("unknown"), make("span"))); },
    fill: (cell, it, row) => {
      attribute(row, "data-state", it.state);
      attribute(cell.querySelector("use"), "href", `#s-${KNOWN_STATES.has(it.state) ? it.state : "unknown"}`);
      text(cell.querySelector(".state span"), it.state);
    },
  },
  {
    name: "address", label: "Backend", kind: "wide address", header: true, first: 1, value: (it) => it.address,
    build: (cell) => { cell.append(make("span"), make("span", { class: "tag" })); },
    fill: (cell, it) => {
      text(cell.firstChild, it.address);
      const tags = [it.source === "flags" ? "" : it.source, it.backup ? "backup" : "", it.mode === "ready" || it.state === "maintenance" ? "" : it.mode];
      text(cell.lastChild, tags.filter(Boolean).join(" · "));
    },
  },
  {
    name: "why", label: "Why", kind: "wide why",
    fill: (cell, it) => { text(cell, it.why || ""); attribute(cell, "title", it.why || ""); },
  },
  { name: "rate", label: "Req/s", kind: "num", first: -1, value: (it) => it.last_second?.requests ?? 0, fill: plain((it) => rate(it.last_second?.requests)) },
  {
    name: "errors", label: "Errors/s", kind: "num", first: -1, value: (it) => it.last_second?.errors ?? 0,
    fill: (cell, it) => {
      text(cell, rate(it.last_second?.errors));
      cell.classList.toggle("has", (it.last_second?.errors ?? 0) > 0);
    },
  },
  {
    name: "latency", label: "p50 / p99", kind: "num two", first: -1, value: (it) => it.last_second?.p99_seconds ?? -1,
    fill: plain((it) => it.last_second?.p50_seconds == null ? "–" : `${seconds(it.last_second.p50_seconds)} / ${seconds(it.last_second.p99_seconds)}`),
  },
  { name: "flight", label: "In flight", kind: "num", first: -1, value: (it) => it.in_flight, fill: plain((it) => it.max_conns ? `${count(it.in_flight)} / ${count(it.max_conns)}` : count(it.in_flight)) },
  { name: "requests", label: "Requests", kind: "num", first: -1, value: (it) => it.requests, fill: plain((it) => count(it.requests)) },
  { name: "failures", label: "Failures", kind: "num", first: -1, value: (it) => it.failures, fill: plain((it) => count(it.failures)) },
  {
    name: "weight", label: "Weight", kind: "num", first: -1, value: (it) => it.weight,
    fill: plain((it) => Math.abs(it.effective_weight - it.weight) > 0.005 ? `${it.weight} (${Number(it.effective_weight.toFixed(2))})` : `${it.weight}`),
  },
  {
    name: "since", label: "Since", kind: "num since", first: -1, value: (it) => it.since,
    fill: (cell, it) => {
      text(cell, it.since ? span((state.now - Date.parse(it.since)) / 1000) : "–");
      attribute(cell, "title", it.since || "");
    },
  },
  {
    name: "act", label: "", kind: "act wide",
    build: (cell, row) => {
      const button = make("button", { type: "button" }, "Change…");
      button.addEventListener("click", () => openChange(row.item));
      cell.append(button);
    },
    fill: (cell, it) => attribute(cell.firstChild, "aria-label", `Change ${it.id}`),
  },
];

const workerColumns = [
  {
    name: "id", label: "Worker", kind: "wide", header: true,
    fill: (cell, it) => {
      const driver = (it.driver || "").split(" (")[0];
      text(cell, [`${it.id} on core ${it.core}`, driver, it.running === false ? "not running" : ""].filter(Boolean).join(" · "));
      attribute(cell, "title", it.driver || "");
    },
  },
  {
    name: "busy", label: "Busy", kind: "num",
    build: (cell) => { cell.append(make("span", { class: "busy" }, make("span", { class: "track", "aria-hidden": "true" }, make("span")), make("span"))); },
    fill: (cell, it) => {
      const known = it.busy != null;
      text(cell.firstChild.lastChild, known ? `${Math.round(it.busy * 100)} %` : "–");
      cell.firstChild.firstChild.firstChild.style.width = `${known ? Math.min(100, it.busy * 100) : 0}%`;
    },
  },
  { name: "rate", label: "Req/s", kind: "num", fill: plain((it) => rate(it.rate)) },
  { name: "flight", label: "In flight", kind: "num", fill: plain((it) => count(it.in_flight)) },
  { name: "clients", label: "Clients", kind: "num", fill: plain((it) => count(it.clients_open)) },
  { name: "accepted", label: "Accepted", kind: "num", fill: plain((it) => count(it.accepted)) },
  { name: "handed", label: "Handed over", kind: "num", fill: plain((it) => count(it.handed_over)) },
  { name: "requests", label: "Requests", kind: "num", fill: plain((it) => count(it.requests)) },
];

/* ---- the page ---- */

const state = { status: null, now: Date.now(), seen: 0, points: [], workers: new Map(), retry: 0, token: null, abort: null, announced: 0 };

const plots = {
  requests: new Plot("plot-requests", [(it) => it.requests], rate),
  errors: new Plot("plot-errors", [(it) => it.errors], rate),
  latency: new Plot("plot-latency", [(it) => it.p50_seconds, (it) => it.p99_seconds], seconds),
};
const backends = new Table("backends", backendColumns, {
  sortable: true,
  onSort: (sort) => {
    $("sort").value = sort ? sort.name : "";
    backends.sorted = true;
    showBackends();
    backends.sorted = false;
  },
});
const workers = new Table("workers", workerColumns);

function showStatus(status) {
  state.status = status;
  state.now = Date.parse(status.now) || Date.now();
  state.seen = performance.now();
  addPoint({ at: status.now, ...status.last_second });
  text($("version"), status.version || "");
  text($("uptime"), span(status.uptime_seconds));
  text($("epoch"), count(status.epoch));
  const phase = status.draining ? "Draining" : status.ready ? "" : "Not ready: no pool can take every request";
  $("phase").hidden = !phase;
  attribute($("phase"), "data-phase", phase ? "yes" : null);
  text($("phase"), phase);
  showPlots();
  showTotals(status);
  showBackends();
  showWorkers(status);
  showLink();
}

function addPoint(point) {
  const time = Date.parse(point.at);
  const last = state.points[state.points.length - 1];
  if (!(time > (last ? last.time : 0))) return;
  state.points.push({ ...point, time });
}

function showPlots() {
  state.points = state.points.filter((point) => point.time > state.now - HISTORY_SECONDS * 1000);
  const last = state.points[state.points.length - 1];
  const share = last && last.requests > 0 ? (100 * (last.errors || 0)) / last.requests : 0;
  plots.errors.aside = `${share.toFixed(share && share < 10 ? 2 : 0)} % of requests`;
  for (const plot of Object.values(plots)) plot.update(state.points, state.now);
}

// Writes a list of names and values, in place where the names are the same.
function showList(list, entries) {
  const names = entries.map(([name, , kind]) => `${name} ${kind || ""}`).join("\n");
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(...entries.map(([name, , kind]) => make("div", { class: kind || "" }, make("dt", {}, name), make("dd"))));
  }
  entries.forEach(([, value], at) => text(list.children[at].lastChild, value));
}

function showTotals(status) {
  const it = status.totals;
  const flight = it.in_flight ?? status.workers.reduce((sum, worker) => sum + worker.in_flight, 0);
  const tries = (it.connects || 0) + (it.reuses || 0);
  const entries = [
    ["Requests", count(it.requests)], ["In flight", count(flight)], ["Clients", count(it.clients_open)],
    ["Queued", count(it.queued)], ["Tunnels", count(it.tunnels)], ["Retries", count(it.retries)],
    ["Reused", tries ? `${((100 * it.reuses) / tries).toFixed(1)} %` : "–"],
    ["Imbalance", status.imbalance ? status.imbalance.toFixed(2) : "–"],
  ];
  if (it.bytes_received != null) entries.push(["Received", bytes(it.bytes_received)], ["Sent", bytes(it.bytes_sent)]);
  showList($("totals"), entries);
  const statuses = Object.entries(it.statuses || {}).map(([name, value]) => [name, count(value)]);
  const failures = Object.entries(it.failures || {}).filter(([, value]) => value > 0);
  showList($("answers"), [["relayed", count(it.relayed)], ...statuses, ...failures.map(([name, value]) => [name, count(value), "own"])]);
}

function showBackends() {
  if (!state.status) return;
  const needle = $("filter").value.trim().toLowerCase();
  const which = $("which").value;
  const fits = (it) => (!which || (which === "!up" ? it.state !== "up" : it.state === which)) &&
    (!needle || `${it.id} ${it.state} ${it.source} ${it.why}`.toLowerCase().includes(needle));
  let all = 0, shown = 0, up = 0;
  const bodies = new Set();
  for (const pool of state.status.pools) {
    const body = backends.body(pool.name);
    bodies.add(body);
    const fitting = backends.ordered(pool.backends.filter(fits));
    const healthy = pool.backends.filter((it) => it.state === "up").length;
    [all, shown, up] = [all + pool.backends.length, shown + fitting.length, up + healthy];
    showPool(body, pool, healthy);
    backends.fill(body, fitting, (it) => it.id);
    body.hidden = fitting.length === 0;
  }
  for (const body of [...backends.table.tBodies]) {
    if (bodies.has(body)) continue;
    for (const row of [...body.rows]) backends.drop(row);
    body.remove();
  }
  text($("backends-count"), shown === all ? `${up} of ${all} up` : `${up} of ${all} up, ${shown} shown`);
  text($("none"), all ? "No backend matches the filter." : "There is no backend yet.");
  $("none").hidden = shown > 0;
}

function showPool(body, pool, healthy) {
  let row = body.querySelector(".pool");
  if (!row) {
    row = make("tr", { role: "row", class: "pool" });
    const cell = make("th", { role: "rowheader", scope: "rowgroup", colspan: backendColumns.length }, make("span"), make("small"), make("span", { class: "panic" }));
    row.append(cell);
    body.prepend(row);
  }
  const [name, about, panic] = row.firstChild.children;
  text(name, pool.name);
  text(about, `${pool.policy}, ${healthy} of ${pool.backends.length} up`);
  text(panic, pool.panicking ? "  panic mode: too few are healthy, all take requests" : "");
}

function showWorkers(status) {
  const items = status.workers.map((worker) => {
    const before = state.workers.get(worker.id);
    const passed = before ? (state.now - before.now) / 1000 : 0;
    const since = passed > 0.2 && worker.requests >= before.requests ? (worker.requests - before.requests) / passed : null;
    const rate = since ?? before?.rate ?? null;
    if (!before || passed > 0.2) state.workers.set(worker.id, { now: state.now, requests: worker.requests, rate });
    return { ...worker, rate };
  });
  workers.fill(workers.body("all"), items, (it) => it.id);
  text($("workers-count"), `${items.length}`);
}

function showEvent(change, quietly) {
  const list = $("events");
  const meta = make("span", { class: "epoch" }, `${change.cause || ""} · epoch ${change.epoch}`);
  const time = make("time", { datetime: String(change.at) }, clock(change.at));
  list.prepend(make("li", {}, time, make("span", { class: "what" }, `${change.text || change.cause}`), make("span"), meta));
  while (list.children.length > EVENTS_MAX) list.lastChild.remove();
  $("quiet").hidden = true;
  if (!quietly && performance.now() - state.announced > ANNOUNCE_EVERY_MS) {
    state.announced = performance.now();
    text($("announce"), change.text || change.cause);
  }
}

/* ---- the link to the process ---- */

function showLink(problem) {
  if (problem !== undefined) state.problem = problem;
  const age = state.seen ? performance.now() - state.seen : Infinity;
  const live = age < STALE_AFTER_MS;
  const link = live ? "live" : state.seen ? "stale" : "wait";
  attribute($("link"), "data-link", link);
  attribute($("link-shape"), "href", live ? "#s-up" : "#s-unknown");
  text($("link-text"), live ? "Live" : state.seen ? `Stale ${span(age / 1000)}` : "Connecting");
  document.body.classList.toggle("stale", link === "stale");
  const about = link === "stale"
    ? `No data comes: what is shown is old.${state.problem ? ` ${state.problem}` : ""} Trying again.`
    : link === "wait" && state.problem ? `${state.problem} Trying again.` : "";
  $("notice").hidden = !about;
  text($("notice"), about);
}

class Refused extends Error {}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (state.token) headers.Authorization = `Bearer ${state.token}`;
  const answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  if (answer.status === 401) {
    await login();
    return ask(path, options);
  }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    const refused = new Refused(problem.detail || problem.title || `The answer was ${answer.status}.`);
    refused.status = answer.status;
    throw refused;
  }
  return answer;
}

let asking = null;

// Asks for the token, once for all who want it.
function login() {
  asking ??= new Promise((resolve) => {
    $("login-error").hidden = !state.token;
    $("token").value = "";
    $("login").showModal();
    $("login-form").onsubmit = () => {
      state.token = $("token").value;
      keep(sessionStorage, TOKEN_KEY, state.token);
      asking = null;
      resolve();
    };
  });
  return asking;
}

// Storage may be switched off.
function keep(storage, key, value) {
  try { storage.setItem(key, value); } catch { /* then it lasts as long as the page */ }
}

function kept(storage, key) {
  try { return storage.getItem(key); } catch { return null; }
}

async function follow() {
  for (;;) {
    try {
      await listen();
      showLink("The connection was closed.");
    } catch (error) {
      showLink(error instanceof Refused ? error.message : "corelane cannot be reached.");
    }
    state.retry = Math.min(RETRY_MOST_MS, Math.max(RETRY_FIRST_MS, state.retry * 2));
    await wakeable(state.retry * (0.75 + Math.random() / 2));
  }
}

// Waits, but no longer once the page is looked at again.
function wakeable(time) {
  return new Promise((resolve) => {
    const wake = () => { clearTimeout(timer); removeEventListener("online", wake); document.removeEventListener("visibilitychange", wake); resolve(); };
    const timer = setTimeout(wake, time);
    addEventListener("online", wake);
    document.addEventListener("visibilitychange", wake);
  });
}

async function listen() {
  const abort = new AbortController();
  let watchdog = null;
  const heard = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => abort.abort(), SILENCE_MS);
  };
  const signal = abort.signal;
  heard();
  try {
    const past = await (await ask("/api/v1/history", { signal })).json();
    state.points = [];
    for (const point of past.points) addPoint(point);
    showStatus(await (await ask("/api/v1/status", { signal })).json());
    const answer = await ask("/api/v1/events", { signal, headers: { Accept: "text/event-stream" } });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let held = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      held += value;
      const events = held.split(/\r?\n\r?\n/);
      held = events.pop();
      if (held.length > STREAM_CHARS_MAX) throw new Refused("An event was too long.");
      for (const event of events) take(event);
    }
  } finally {
    clearTimeout(watchdog);
    abort.abort();
  }
}

function take(event) {
  let name = "message";
  const data = [];
  for (const line of event.split(/\r?\n/)) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  if (!data.length) return;
  const value = JSON.parse(data.join("\n"));
  if (name === "status") { state.retry = 0; state.problem = ""; showStatus(value); }
  else if (name === "change") showEvent(value);
}

async function showPast() {
  try {
    const past = await (await ask("/api/v1/snapshots")).json();
    const changes = (Array.isArray(past) ? past : past.snapshots || []).slice();
    changes.sort((a, b) => a.epoch - b.epoch);
    if (!$("events").children.length) changes.forEach((change) => showEvent(change, true));
  } catch { /* events come as they happen */ }
}

/* ---- changing a backend ---- */

let changing = null;

function openChange(backend) {
  changing = backend;
  text($("change-id"), `${backend.id} · ${backend.state}${backend.why ? `, ${backend.why}` : ""}`);
  for (const radio of $("change-form").elements.mode) radio.checked = radio.value === backend.mode;
  $("weight").value = String(backend.weight);
  $("change-error").hidden = true;
  showSum();
  $("change").showModal();
  [...$("change-form").elements.mode].find((radio) => radio.checked)?.focus();
}

function wanted() {
  const mode = $("change-form").elements.mode.value;
  const weight = $("weight").valueAsNumber;
  const change = {};
  if (mode && mode !== changing.mode) change.mode = mode;
  if (Number.isInteger(weight) && weight !== changing.weight) change.weight = weight;
  return change;
}

function showSum() {
  const change = wanted();
  const parts = [];
  if (change.mode) parts.push(`mode ${changing.mode} → ${change.mode}`);
  if (change.weight) parts.push(`weight ${changing.weight} → ${change.weight}`);
  text($("change-sum"), parts.length ? `Will change: ${parts.join(", ")}` : "Nothing is changed yet.");
  $("change-apply").disabled = parts.length === 0 || !$("weight").validity.valid;
}

async function applyChange(event) {
  event.preventDefault();
  const backend = changing;
  const [pool, ...rest] = backend.id.split("/");
  const path = `/api/v1/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(rest.join("/"))}`;
  const headers = { "Content-Type": "application/json", "If-Match": `"${backend.revision}"` };
  $("change-apply").disabled = true;
  try {
    const answer = await ask(path, { method: "PATCH", headers, body: JSON.stringify(wanted()) });
    const done = answer.status === 202 ? "is changed in etcd, and will be here" : "is changed";
    text($("announce"), `${backend.id} ${done}.`);
    $("change").close();
  } catch (error) {
    $("change-error").hidden = false;
    if (error.status === 412) {
      text($("change-error"), "Somebody else has changed it meanwhile. Look again at what will change, then apply.");
      // Where it cannot be read, the row has the new state within a second.
      changing = await ask(path).then((answer) => answer.json()).catch(() => backend);
    } else {
      text($("change-error"), error instanceof Refused ? error.message : "corelane cannot be reached; nothing was changed.");
    }
    showSum();
  }
}

/* ---- the theme, the keyboard, the start ---- */

const THEMES = ["auto", "light", "dark"];

function setTheme(theme) {
  attribute(document.documentElement, "data-theme", theme === "auto" ? null : theme);
  text($("theme"), theme[0].toUpperCase() + theme.slice(1));
  attribute($("theme"), "aria-label", `Theme: ${theme}`);
}

let theme = THEMES.includes(kept(localStorage, THEME_KEY)) ? kept(localStorage, THEME_KEY) : "auto";
setTheme(theme);
$("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  keep(localStorage, THEME_KEY, theme);
  setTheme(theme);
});

$("sort").append(make("option", { value: "" }, "As configured"),
  ...backendColumns.filter((it) => it.value).map((it) => make("option", { value: it.name }, `By ${it.label.toLowerCase()}`)));
$("sort").addEventListener("change", () => {
  const column = backendColumns.find((it) => it.name === $("sort").value);
  backends.sortBy(column?.name, column?.first);
});
$("filter").addEventListener("input", showBackends);
$("which").addEventListener("change", showBackends);
addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLElement && event.target.closest("input, select, dialog");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    $("filter").focus();
  }
});
$("change-form").addEventListener("input", showSum);
$("change-form").addEventListener("submit", applyChange);
$("change-cancel").addEventListener("click", () => $("change").close());
$("login").addEventListener("cancel", (event) => event.preventDefault());
setInterval(showLink, 500);

state.token = kept(sessionStorage, TOKEN_KEY);
follow();
showPast();
