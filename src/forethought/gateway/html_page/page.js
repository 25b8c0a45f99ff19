// Shows what a gateway does: asks for its state once, then hears of it once a second. What others wrote is text.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const MOST_POINTS = 480;
const at = (id) => document.getElementById(id);
const whole = (value) => value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en");
const share = (value) => value === null || value === undefined ? "–" : `${Math.round(100 * value)}%`;
const clock = (second, isLong = true) => new Date(1000 * second).toLocaleTimeString("en-GB",
  {hour: "2-digit", minute: "2-digit", ...(isLong ? {second: "2-digit"} : {})});
const day = (second) => new Date(1000 * second).toLocaleDateString("en-GB", {day: "numeric", month: "short"});
const per = {minute: "a minute", hour: "an hour", day: "a day", month: "a month", all: "in all"};
const named = (account) => account === "gateway" ? "the gateway" : account;
const keyOf = (quota) => JSON.stringify([quota.account, quota.window]);

let state = null;
let chosen = null;
let isPaused = false;
const series = new Map();
let used = [];

function made(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function cell(text, kind = "", tag = "td") {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text instanceof Node) element.append(text); else element.textContent = text;
  return element;
}

function head(text) {
  const element = cell(text, "name", "th");
  element.scope = "row";
  return element;
}

// Puts rows into a table, unless they are the same, or somebody is marking text in it.
function fill(id, rows, columns, none) {
  const body = at(id);
  const known = JSON.stringify(rows);
  const marked = document.getSelection();
  if (body.dataset.known === known) return;
  if (marked && !marked.isCollapsed && body.contains(marked.anchorNode)) return;
  body.dataset.known = known;
  const lines = rows.map((row) => {
    const line = document.createElement("tr");
    line.append(...columns(row));
    return line;
  });
  if (!lines.length) {
    const line = document.createElement("tr");
    const only = cell(none, "quiet");
    only.colSpan = 20;
    line.append(only);
    lines.push(line);
  }
  body.replaceChildren(...lines);
}

function facts(id, pairs) {
  at(id).replaceChildren(...pairs.map(([name, value]) => {
    const row = document.createElement("div");
    row.append(cell(name, "", "dt"), cell(value, "", "dd"));
    return row;
  }));
}

// Tokens are left where the quota's line ends; the price of a token, over the same time, stands above.
function span(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} seconds`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} minutes`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} hours` : `${Math.round(seconds / 86400)} days`;
}

function moment(second, now) {
  return Math.abs(second - now) < 43200 ? clock(second, Math.abs(second - now) < 600) : `${day(second)}, ${clock(second, false)}`;
}

function price(value) {
  return value === null || value === undefined ? "not known" : (1000 * value).toPrecision(3);
}

// Tokens a second over the last tenth of what is shown.
function rateOf(points) {
  if (points.length < 2) return null;
  const last = points[points.length - 1];
  const first = points.find((point) => point[0] >= last[0] - Math.max(5, (last[0] - points[0][0]) / 5)) || points[0];
  return last[0] > first[0] ? Math.max(0, (last[1] - first[1]) / (last[0] - first[0])) : null;
}

function quotaOf() {
  const found = state.quotas.find((quota) => keyOf(quota) === chosen);
  if (found) return found;
  const fullest = (list) => list.reduce((best, each) =>
    best === null || (each.settled + each.reserved) / each.quota > (best.settled + best.reserved) / best.quota ? each : best, null);
  return fullest(state.quotas.filter((quota) => quota.account === "gateway")) || fullest(state.quotas);
}

function decision() {
  const quota = quotaOf();
  const refused = Object.values(state.refusals).reduce((sum, count) => sum + count, 0);
  const since = moment(state.started, state.now);
  if (quota) {
    const taken = quota.settled + quota.reserved;
    const left = Math.max(0, quota.quota - taken);
    const rate = rateOf(series.get(keyOf(quota)) || []);
    const who = quota.account === "gateway" ? "The gateway" : quota.account;
    const gone = quota.end ? `, with ${share((state.now - quota.start) / (quota.end - quota.start))} of the ${quota.window} gone` : "";
    at("decision").textContent = `${who} has used or reserved ${share(taken / quota.quota)} of its ${whole(quota.quota)} tokens `
      + `${per[quota.window]}${gone}${outlook(quota, left, rate)}.`;
  } else {
    const rate = rateOf(used);
    at("decision").textContent = `No quota is set: ${whole(state.tokens.settled || state.tokens.output)} tokens were used since `
      + `${since}${rate === null ? "" : `, ${whole(60 * rate)} a minute now`}.`;
  }
  const added = state.added_ms.of ? ` The gateway adds ${state.added_ms.median.toFixed(1)} ms at the median and `
    + `${state.added_ms.p99.toFixed(1)} ms at the 99th percentile (last ${whole(state.added_ms.of)}).` : "";
  at("more").textContent = `${whole(state.requests)} requests since ${since}, ${whole(state.open)} open, ${whole(refused)} refused.${added}`;
}

// What becomes of a quota if tokens go on as they do.
function outlook(quota, left, rate) {
  if (left === 0) return quota.end ? `; the next ${quota.window} begins at ${moment(quota.end, state.now)}` : "";
  if (rate === null) return "";
  const ends = rate > 0 ? state.now + left / rate : Infinity;
  if (!quota.end) return isFinite(ends) ? `; at the present rate the rest lasts ${span(ends - state.now)}` : "";
  if (ends >= quota.end) return `; at the present rate they last the whole ${quota.window}`;
  return `; at the present rate they run out at ${moment(ends, state.now)}, ${span(quota.end - ends)} before it ends`;
}

function choices() {
  const select = at("quota");
  const keys = JSON.stringify(state.quotas.map(keyOf).sort());
  if (select.dataset.known !== keys) {
    select.dataset.known = keys;
    const shown = quotaOf();
    select.replaceChildren(...state.quotas.map((quota) => {
      const option = document.createElement("option");
      option.value = keyOf(quota);
      option.textContent = `${named(quota.account)}, ${whole(quota.quota)} ${per[quota.window]}`;
      return option;
    }));
    if (shown) select.value = keyOf(shown);
    if (shown) chosen = keyOf(shown);
  }
  select.parentElement.hidden = state.quotas.length < 2;
}

// A scale from what is measured to places on the picture.
const scale = (low, high, from, to) => (value) => from + (to - from) * (value - low) / (high - low || 1);

function line(points, x, y) {
  return points.map((point, index) => `${index ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`).join("");
}

function words(x, y, text, more = {}) {
  return made("text", {x, y, ...more}, text);
}

function picture(id, height, draw, title) {
  const place = at(id);
  const width = Math.max(260, Math.round(place.clientWidth));
  const drawn = made("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title});
  draw(drawn, width, height);
  place.replaceChildren(drawn);
}

function priceStrip(drawn, points, x, top, height) {
  const priced = points.filter((point) => point[2] !== null);
  const values = priced.map((point) => point[2]);
  drawn.append(words(0, top - 10, "price: right answers per thousand tokens", {class: "price-words"}));
  if (!values.length) {
    drawn.append(words(x.left, top + height / 2, "not known yet"));
    return;
  }
  const low = Math.min(...values);
  const high = Math.max(...values);
  const y = high > low ? scale(low, high, top + height - 4, top + 4) : () => top + height / 2;
  for (const value of high > low ? [low, high] : [low]) {
    drawn.append(made("line", {class: "axis", x1: x.left, x2: x.right, y1: y(value), y2: y(value)}));
    drawn.append(words(x.left - 6, y(value) + 4, price(value), {"text-anchor": "end"}));
  }
  const last = priced[priced.length - 1];
  const isRight = x.of(last[0]) > x.right - 60;
  drawn.append(
    made("path", {class: "price", d: line(priced.map((point) => [point[0], point[2]]), x.of, y)}),
    made("circle", {class: "mark-price", cx: x.of(last[0]), cy: y(last[2]), r: 3.5}),
    words(x.of(last[0]) + (isRight ? -9 : 9), y(last[2]) + (y(last[2]) > top + height / 2 ? -7 : 14), price(last[2]),
      {class: "price-words", "text-anchor": isRight ? "end" : "start"}),
  );
}

function timeAxis(drawn, x, start, end, bottom) {
  const isDays = end - start > 90000;
  const places = x.right - x.left > 420 ? 4 : 2;
  for (let part = 0; part <= places; part += 1) {
    const second = start + (end - start) * part / places;
    const text = isDays ? day(second) : clock(second, end - start < 3600);
    const anchor = part === 0 ? "start" : part === places ? "end" : "middle";
    drawn.append(words(x.of(second), bottom + 18, text, {"text-anchor": anchor}));
  }
}

function burn() {
  const quota = quotaOf();
  const points = quota ? series.get(keyOf(quota)) || [] : used;
  const first = points.length ? points[0][0] : state.now - 1;
  const start = quota && quota.end ? quota.start : first;
  const end = quota && quota.end ? quota.end : Math.max(state.now, first + 60);
  const top = quota ? quota.quota : Math.max(1, ...points.map((point) => point[1]));
  const level = (tokens) => quota ? Math.max(0, quota.quota - tokens) : tokens;
  const now = quota ? quota.quota - quota.settled - quota.reserved : points.length ? points[points.length - 1][1] : 0;
  at("quota-title").textContent = quota
    ? `Tokens left of ${whole(quota.quota)} ${per[quota.window]} for ${named(quota.account)}, and the price over it`
    : "Tokens used, and the price over them";
  const said = quota ? `${whole(Math.max(0, now))} of ${whole(top)} tokens are left at ${clock(state.now)}, price ${price(state.price)} `
    + "right answers per thousand tokens" : `${whole(now)} tokens were used by ${clock(state.now)}`;
  picture("burn", 320, (drawn, width) => {
    const left = 64;
    const x = {left, right: width, of: scale(start, end, left, width)};
    priceStrip(drawn, points, x, 24, 60);
    const y = scale(0, top, 290, 126);
    drawn.append(words(0, 112, quota ? "tokens left" : "tokens used"));
    for (const part of [0, .5, 1]) {
      drawn.append(made("line", {class: "axis", x1: left, x2: width, y1: y(top * part), y2: y(top * part)}));
      drawn.append(words(left - 6, y(top * part) + 4, short(top * part), {"text-anchor": "end"}));
    }
    if (quota && quota.end) {
      drawn.append(made("line", {class: "pace", x1: left, x2: width, y1: y(top), y2: y(0)}));
      drawn.append(words(width - 4, y(top * .2) - 10, "even pace", {"text-anchor": "end", class: "halo"}));
    }
    const levels = points.map((point) => [point[0], level(point[1])]);
    if (levels.length) {
      const path = line(levels, x.of, y);
      const last = levels[levels.length - 1];
      drawn.append(made("path", {class: "under", d: `${path}L${x.of(last[0]).toFixed(1)} ${y(0)}L${x.of(levels[0][0]).toFixed(1)} ${y(0)}Z`}));
      drawn.append(made("path", {class: "left", d: path}));
      drawn.append(made("line", {class: "now", x1: x.of(last[0]), x2: x.of(last[0]), y1: 24, y2: 290}));
      drawn.append(made("circle", {class: "mark-left", cx: x.of(last[0]), cy: y(last[1]), r: 4}));
      const isRight = x.of(last[0]) > width - 80;
      const isBelow = quota && quota.end && last[1] < top * (end - last[0]) / (end - start) && y(last[1]) < 272;
      drawn.append(words(x.of(last[0]) + (isRight ? -9 : 9), isBelow ? y(last[1]) + 17 : Math.max(122, y(last[1]) - 9),
        whole(last[1]), {class: "said halo", "text-anchor": isRight ? "end" : "start"}));
    }
    timeAxis(drawn, x, start, end, 290);
  }, said);
  const pairs = quota ? [
    ["used", whole(quota.settled)],
    ["reserved by open requests", whole(quota.reserved)],
    ["most that these can use", whole(quota.bound)],
    ["left", whole(Math.max(0, now))],
    ["window ends", quota.end ? moment(quota.end, state.now) : "never"],
  ] : [["used", whole(state.tokens.settled || state.tokens.output)], ["reserved in all", whole(state.tokens.reserved)]];
  facts("quota-facts", [...pairs, ["right answers per thousand tokens", price(state.price)]]);
}

function short(value) {
  const [unit, sign] = value >= 1e9 ? [1e9, "G"] : value >= 1e6 ? [1e6, "M"] : value >= 1e4 ? [1e3, "k"] : [1, ""];
  return `${Number((value / unit).toPrecision(3)).toLocaleString("en")}${sign}`;
}

function bars(parts, most) {
  const drawn = made("svg", {viewBox: "0 0 120 20", preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false"});
  for (const [kind, value] of parts) {
    const width = Math.max(0, Math.min(120, 120 * value / (most || 1)));
    drawn.append(made("rect", {class: kind, x: 0, y: kind === "track" ? 3 : 6, width, height: kind === "track" ? 14 : 8}));
  }
  return drawn;
}

function options() {
  const rows = state.options.slice().sort((a, b) => (a.label - b.label) || (a.budget || a.used || 0) - (b.budget || b.used || 0));
  const most = Math.max(1, ...rows.map((row) => Math.max(row.budget || 0, row.reasoning || 0)));
  fill("options", rows, (row) => [
    head(row.label), cell(whole(row.requests), "number"),
    cell(whole(row.budget), "number"), cell(whole(row.reasoning), "number"),
    cell(bars([["track", row.budget || 0], ["fill", row.reasoning || 0]], most), "bars"),
    cell(whole(row.overshoots), row.overshoots ? "number bad" : "number"),
  ], "no budget was given yet");
  at("options-note").textContent = state.overshoots
    ? `${whole(state.overshoots)} thoughts were longer than their budget, by ${whole(state.tokens.largest_overshoot)} tokens at most.` : "";
}

function scatter() {
  const points = state.points.filter((point) => point[0] > 0 && point[1] > 0);
  const values = points.flat();
  const low = Math.floor(Math.log10(Math.min(...values, 100)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values, 1))));
  const told = state.outcomes.right + state.outcomes.wrong;
  const ratio = state.tokens.predicted ? state.tokens.predicted_used / state.tokens.predicted : null;
  const said = ratio === null ? "nothing was counted yet" : `in all, ${ratio.toFixed(2)} times the predicted tokens were used: `
    + `${whole(state.tokens.predicted_used)} of ${whole(state.tokens.predicted)}`;
  picture("scatter", 300, (drawn, width) => {
    const wide = Math.min(width, 460);
    const x = scale(low, high, 52, wide - 8);
    const y = scale(low, high, 258, 20);
    for (let power = low; power <= high; power += 1) {
      drawn.append(made("line", {class: "axis", x1: x(power), x2: x(power), y1: 20, y2: 258}));
      drawn.append(made("line", {class: "axis", x1: 52, x2: wide - 8, y1: y(power), y2: y(power)}));
      drawn.append(words(x(power), 275, short(10 ** power), {"text-anchor": power === high ? "end" : "middle"}));
      drawn.append(words(46, y(power) + 4, short(10 ** power), {"text-anchor": "end"}));
    }
    drawn.append(made("line", {class: "pace", x1: x(low), y1: y(low), x2: x(high), y2: y(high)}));
    for (const [predicted, measured] of points) {
      drawn.append(made("circle", {class: "dot", cx: x(Math.log10(predicted)).toFixed(1), cy: y(Math.log10(measured)).toFixed(1), r: 3}));
    }
    drawn.append(words(0, 10, "measured"), words(wide - 8, 296, "predicted", {"text-anchor": "end"}));
  }, `${points.length} requests; ${said}`);
  const right = told ? ` Right as told: ${whole(state.outcomes.right)} of ${whole(told)} (${share(state.outcomes.right / told)})`
    + (state.outcomes.expected_of ? `, expected ${share(state.outcomes.expected_right / state.outcomes.expected_of)}.` : ".") : "";
  at("scatter-note").textContent = `${said[0].toUpperCase()}${said.slice(1)}; the dashed line is as predicted.${right}`;
}

function tenants() {
  fill("tenants", state.tenants.rows, (row) => {
    const balance = row.balance;
    const quota = balance && balance.quota;
    const taken = balance ? balance.settled + balance.reserved : row.settled;
    const isFull = Boolean(quota) && taken >= .95 * quota;
    return [
      head(row.name), cell(whole(balance ? balance.settled : row.settled), "number"), cell(quota ? whole(quota) : "–", "number"),
      cell(balance ? quota ? `tokens ${per[balance.window]}` : "none" : "–"),
      cell(quota ? bars([["track", quota], ["open", taken], [isFull ? "fill full" : "fill", balance.settled]], quota) : "", "bars"),
      cell(balance ? whole(balance.reserved) : "–", "number"), cell(whole(row.requests), "number"),
      cell(whole(row.refused), row.refused ? "number bad" : "number"),
    ];
  }, "no tenant has asked yet");
  const others = state.tenants.count - state.tenants.rows.length;
  at("tenants-note").textContent = others > 0 ? `${whole(others)} more tenants are not listed: theirs are the least used quotas.` : "";
}

function reasons() {
  const rows = Object.entries(state.reasons);
  fill("reasons", rows, ([reason, count]) => [head(reason), cell(whole(count), "number")], "none yet");
  const endings = [
    ...Object.entries(state.endings),
    ...Object.entries(state.refusals).map(([status, count]) => [`of these refused with ${status}`, count]),
    ...Object.entries(state.upstream_errors).map(([kind, count]) => [`upstream ${kind}`, count]),
    ...(state.lost ? [["not kept by the journal", state.lost]] : []),
  ];
  fill("endings", endings, ([ending, count]) => [head(ending), cell(whole(count), "number")], "none yet");
}

function recent() {
  fill("recent", state.recent, (row) => {
    const isBad = row.ending !== "done" || row.status >= 400;
    const ended = row.status && row.status !== 200 ? `${row.ending} (${row.status})` : row.ending;
    return [
      cell(clock(row.time)), cell(row.tenant || "–"), cell(row.model || "–"), cell(row.option === null ? "–" : row.option),
      cell(`${row.kind || "–"}${row.is_shadow ? " (shadow)" : ""}`), cell(row.expected === null ? "–" : share(row.expected), "number"),
      cell(whole(row.predicted), "number"), cell(whole(row.used), "number"), cell(row.added_ms.toFixed(1), "number"),
      cell(ended, isBad ? "bad" : ""), cell(row.right === null ? "–" : row.right ? "yes" : "no"), cell(row.id, "id"),
    ];
  }, "no request has come yet");
}

function about() {
  const known = {...state.about};
  at("model").textContent = known.model ? `· ${known.model}` : "";
  at("simulated").hidden = !known.simulated;
  at("shadow").hidden = !known.shadow;
  at("logout").hidden = !known.has_key;
  const pairs = Object.entries(known).filter(([name]) => !["simulated", "shadow", "has_journal", "has_key"].includes(name));
  facts("about", [
    ...pairs.map(([name, value]) => [name.replaceAll("_", " "), String(value)]),
    ["journal", known.has_journal ? "kept" : "not kept"],
    ["running since", `${day(state.started)}, ${clock(state.started)} (times are this browser's)`],
  ]);
}

function show() {
  if (!state) return;
  about();
  choices();
  decision();
  burn();
  options();
  scatter();
  tenants();
  reasons();
  recent();
}

function note(text, kind) {
  const status = at("status");
  if (status.textContent !== text) status.textContent = text;
  status.className = kind;
}

function added(points, point) {
  if (points.length && point[0] <= points[points.length - 1][0]) return points;
  points.push(point);
  return points.length > MOST_POINTS ? points.filter((_, index) => index % 2 === 0) : points;
}

function hear(found) {
  for (const quota of found.quotas) {
    const key = keyOf(quota);
    const known = state && state.quotas.find((each) => keyOf(each) === key);
    const points = known && known.start === quota.start ? series.get(key) || [] : [];
    series.set(key, added(points, [found.now, quota.settled + quota.reserved, found.price]));
  }
  used = added(used, [found.now, found.tokens.settled || found.tokens.output, found.price]);
  state = found;
  if (!isPaused) {
    note("live", "live");
    show();
  }
}

async function begin() {
  const answer = await fetch("state", {headers: {accept: "application/json"}});
  if (answer.status === 401) {
    location.reload(); // the login has run out
    return;
  }
  if (!answer.ok) throw new Error(`the gateway answers ${answer.status}`);
  const found = await answer.json();
  series.clear();
  for (const each of found.series) series.set(keyOf(each), each.points);
  used = found.used;
  state = found;
  if (!isPaused) show();
}

function listen() {
  const events = new EventSource("events");
  events.onmessage = (event) => hear(JSON.parse(event.data));
  events.addEventListener("beat", () => isPaused || note("live", "live"));
  events.onerror = () => {
    if (state && !isPaused) note(`connection lost; shown is ${clock(state.now)}`, "lost");
    if (events.readyState === EventSource.CLOSED) {
      events.close();
      setTimeout(start, 3000);
    }
  };
}

async function start() {
  try {
    await begin();
    listen();
  } catch (error) {
    note(state ? `connection lost; shown is ${clock(state.now)}` : "the gateway cannot be reached", "lost");
    setTimeout(start, 3000);
  }
}

at("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  at("pause").setAttribute("aria-pressed", String(isPaused));
  note(isPaused ? `paused at ${clock(state ? state.now : Date.now() / 1000)}` : "live", isPaused ? "" : "live");
  if (!isPaused) show();
});
at("quota").addEventListener("change", (event) => {
  chosen = event.target.value;
  show();
});
let width = 0;
new ResizeObserver(() => {
  const found = at("burn").clientWidth;
  if (found !== width) show();
  width = found;
}).observe(at("burn"));
start();
