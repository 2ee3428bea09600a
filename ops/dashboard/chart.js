// A curve over steps, drawn as SVG by hand: a smoothed line over what it was made from, marks where
// a new generation began, and the values under the pointer.

const kChart = {height: 190, left: 46, right: 8, top: 8, bottom: 22};
const kPointsMax = 600;
let chartWidth = 640;  // of the last one that was measured

// Points [{x, y}] in at most kPointsMax buckets, each by its mean.
function thinned(points) {
  const size = Math.ceil(points.length / kPointsMax);
  if (size <= 1) return points;
  const out = [];
  for (let at = 0; at < points.length; at += size) {
    const bucket = points.slice(at, at + size);
    out.push({x: bucket[bucket.length - 1].x, y: bucket.reduce((sum, p) => sum + p.y, 0) / bucket.length});
  }
  return out;
}

// Each point by the median of those around it: a jump stays where it is, and stays a jump.
function smoothed(points) {
  const reach = Math.min(12, Math.floor(points.length / 25));
  return points.map((point, i) => {
    const room = Math.min(reach, i, points.length - 1 - i);
    const near = points.slice(i - room, i + room + 1).map((each) => each.y).sort((a, b) => a - b);
    return {x: point.x, y: near[room]};
  });
}

function ticks(low, high, wanted) {
  const span = high - low || 1;
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const out = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) out.push(at);
  return out;
}

function chart(points, marks, print, label, width = chartWidth) {
  const box = h("div", {class: "chart"});
  const shown = thinned(points);
  if (shown.length < 2) {
    add(box, [h("p", {class: "empty"}, "no steps yet")]);
    return box;
  }
  const line = smoothed(shown);
  const sorted = shown.map((p) => p.y).sort((a, b) => a - b);
  // One wild value (a step that was slow once) does not flatten all others.
  const few = shown.length > 40 ? 0.01 : 0;
  let low = sorted[Math.floor(few * (sorted.length - 1))];
  let high = sorted[Math.ceil((1 - few) * (sorted.length - 1))];
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  low = low >= 0 && low - margin < 0 ? 0 : low - margin;
  high += margin;
  const first = shown[0].x;
  const last = shown[shown.length - 1].x;
  const {height, left, right, top, bottom} = kChart;
  const across = (x) => left + (x - first) / (last - first || 1) * (width - left - right);
  const up = (y) => {
    const share = Math.max(-0.02, Math.min(1.02, (y - low) / (high - low)));
    return height - bottom - share * (height - top - bottom);
  };
  const path = (of) => of.map((p, i) => `${i ? "L" : "M"}${across(p.x).toFixed(1)} ${up(p.y).toFixed(1)}`).join("");
  const levels = ticks(low, high, 4);
  const digits = Math.max(0, -Math.floor(Math.log10(levels[1] - levels[0] || 1)));
  const cross = h("g", {visibility: "hidden"});
  const svg = h("svg", {viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label},
      levels.map((y) => [
        h("line", {class: "grid", x1: left, x2: width - right, y1: up(y), y2: up(y)}),
        h("text", {x: left - 7, y: up(y) + 4, "text-anchor": "end"}, high < 1000 ? y.toFixed(digits) : count(y)),
      ]),
      ticks(first, last, 5).filter(Number.isInteger).map((x) =>
        h("text", {x: across(x), y: height - 5, "text-anchor": "middle"}, x < 1e5 ? x : count(x))),
      marks.filter((mark) => mark.x > first && mark.x <= last).map((mark) =>
        h("line", {class: "mark", x1: across(mark.x), x2: across(mark.x), y1: top, y2: height - bottom},
            h("title", null, mark.text))),
      h("path", {class: "raw", d: path(shown)}),
      h("path", {class: "curve", d: path(line)}),
      cross);
  svg.addEventListener("pointermove", (event) => {
    const x = (event.offsetX / svg.clientWidth * width - left) / (width - left - right) * (last - first) + first;
    let near = 0;
    for (let i = 1; i < shown.length; ++i) {
      if (Math.abs(shown[i].x - x) < Math.abs(shown[near].x - x)) near = i;
    }
    const point = shown[near];
    const at = across(point.x);
    cross.replaceChildren(
        h("line", {class: "cross", x1: at, x2: at, y1: top, y2: height - bottom}),
        h("circle", {class: "dot", cx: at, cy: up(point.y), r: 3.2}),
        h("text", {x: at > width / 2 ? at - 8 : at + 8, y: top + 10, "text-anchor": at > width / 2 ? "end" : "start"},
            `step ${point.x}: ${print(point.y)}`));
    cross.setAttribute("visibility", "visible");
  });
  svg.addEventListener("pointerleave", () => cross.setAttribute("visibility", "hidden"));
  // Drawn for the width it has, so that letters keep their shape.
  new ResizeObserver(([entry]) => {
    const wide = Math.max(260, Math.round(entry.contentRect.width));
    if (wide === width || entry.contentRect.width === 0) return;
    chartWidth = wide;
    box.replaceWith(chart(points, marks, print, label, wide));
  }).observe(box);
  box.append(svg);
  return box;
}
