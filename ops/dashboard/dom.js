// Elements, and words for quantities. Text from the cluster becomes a page's text here and nowhere
// else: as a text node, never as markup (the page's policy refuses markup from strings altogether).

const kSvg = "http://www.w3.org/2000/svg";
const kSvgTags = new Set(["svg", "path", "line", "text", "g", "circle", "rect", "title"]);

// h("td", {class: "n"}, "7", child): an element; what is null or undefined is left out.
function h(tag, attributes, ...children) {
  const node = kSvgTags.has(tag) ? document.createElementNS(kSvg, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--") || name === "width" && tag === "i" || name === "left") node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  add(node, children);
  return node;
}

function add(node, children) {
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

// A part of the page that is drawn anew only when what it shows has changed, so that a selection, a
// scroll position or an open fold stays.
function part(tag, attributes) {
  const node = h(tag, attributes);
  let shown;
  return {
    node,
    show(data, draw) {
      const now = JSON.stringify(data);
      if (now === shown) return;
      shown = now;
      node.replaceChildren();
      add(node, [draw(data)]);
    },
  };
}

function card(title, note, ...children) {
  return h("section", {class: "card"},
      h("h2", null, title, note ? h("span", {class: "note"}, note) : null), ...children);
}

function table(titles, rows) {
  return h("div", {class: "scroll"}, h("table", null,
      h("thead", null, h("tr", null, titles.map(([title, kind]) => h("th", {class: kind, scope: "col"}, title)))),
      h("tbody", null, rows)));
}

const kTone = {
  running: "good", done: "good", ready: "good",
  placed: "busy", starting: "busy", queued: "calm", expected: "calm", cancelled: "calm",
  recovering: "warn", stopping: "warn", suspect: "warn", draining: "warn", drained: "warn",
  quarantined: "bad", failed: "bad", lost: "bad",
};
function pill(state) { return h("span", {class: `pill ${kTone[state] ?? "calm"}`}, state); }

function meter(part, whole, tone) {
  const share = whole > 0 ? Math.min(1, part / whole) : 0;
  return h("div", {class: `meter ${tone ?? ""}`}, h("i", {width: `${(share * 100).toFixed(1)}%`}));
}

// Quantities, as `tutti` prints them ---------------------------------------------------------------

function duration(ms) {
  if (!(ms >= 0)) return "–";
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 59.95) return `${s.toFixed(1)} s`;
  const whole = Math.round(s);
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} m`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`;
}

function count(number) {
  if (!Number.isFinite(number)) return "–";
  const size = Math.abs(number);
  if (size < 1000) return size >= 100 || Number.isInteger(number) ? number.toFixed(0) : number.toPrecision(3);
  if (size < 1e6) return `${(number / 1e3).toFixed(1)}k`;
  if (size < 1e9) return `${(number / 1e6).toFixed(1)}M`;
  return `${(number / 1e9).toFixed(1)}G`;
}

function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1023.95 && unit + 1 < units.length) { number /= 1024; ++unit; }
  return `${Number.isInteger(number) ? number : number.toFixed(1)} ${units[unit]}`;
}

function clock(unixMs) {
  return new Date(unixMs).toLocaleTimeString([], {hour12: false});
}

function plural(number, what) { return `${number} ${what}${number === 1 ? "" : "s"}`; }

// A hue for a job that is far from those of its neighbours by number.
function hue(job) { return String((job * 137.508) % 360); }
