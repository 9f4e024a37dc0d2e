// Charts as SVG: scales, axes, and what is drawn on them. Colours are classes, so that themes and print can change them.
import { h, s, short, unitOf } from "./dom.js";

const MARGIN = { left: 64, right: 16, top: 14, bottom: 46 };

export function ticksOf(low, high, log, most) {
  if (log) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const digit of [1, 2, 5]) {
        const tick = digit * 10 ** power;
        if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(Number(tick.toPrecision(12)));
      }
    }
    return ticks.length > 1 ? ticks : [low, high];
  }
  const raw = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((digit) => digit * power).find((each) => each >= raw);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(Number((k * step).toPrecision(12)));
  return ticks;
}

/** A scale of values to pixels, a little wider than the values; `log` holds where all of them are above 0. */
export function scale(values, log, from, to) {
  const known = values.filter(Number.isFinite);
  let low = Math.min(...known);
  let high = Math.max(...known);
  if (!known.length) [low, high] = [0, 1];
  const logarithmic = log && low > 0;
  if (low === high) [low, high] = logarithmic ? [low / 1.5, high * 1.5] : [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  const f = logarithmic ? Math.log : (x) => x;
  const pad = (f(high) - f(low)) * 0.05;
  const ends = [f(low) - pad, f(high) + pad];
  const at = (x) => from + ((f(x) - ends[0]) / (ends[1] - ends[0])) * (to - from);
  const inverse = logarithmic ? Math.exp : (x) => x;
  return { at, low: inverse(ends[0]), high: inverse(ends[1]), log: logarithmic, from, to };
}

/** An empty chart with axes: the svg, its scales, and `plot`, the group to draw into. */
export function chart({ width, height = 360, x, y, label, role = "img" }) {
  const sx = scale(x.values, x.log, MARGIN.left, width - MARGIN.right);
  const sy = scale(y.values, y.log, height - MARGIN.bottom, MARGIN.top);
  const svg = s("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role, "aria-label": label });
  const axes = s("g", { class: "axes", "aria-hidden": "true" });
  const many = Math.max(3, Math.floor((width - 80) / 90));
  for (const tick of ticksOf(sx.low, sx.high, sx.log, many)) {
    const px = sx.at(tick);
    axes.append(s("line", { class: "grid", x1: px, x2: px, y1: MARGIN.top, y2: height - MARGIN.bottom }));
    axes.append(s("text", { x: px, y: height - MARGIN.bottom + 16, "text-anchor": "middle" }, x.format?.(tick) ?? tickText(tick)));
  }
  for (const tick of ticksOf(sy.low, sy.high, sy.log, 6)) {
    const py = sy.at(tick);
    axes.append(s("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: py, y2: py }));
    axes.append(s("text", { x: MARGIN.left - 8, y: py + 4, "text-anchor": "end" }, y.format?.(tick) ?? tickText(tick)));
  }
  axes.append(s("text", { class: "title", x: (MARGIN.left + width) / 2, y: height - 8, "text-anchor": "middle" }, x.label));
  const middle = (MARGIN.top + height - MARGIN.bottom) / 2;
  axes.append(
    s("text", { class: "title", x: 14, y: middle, "text-anchor": "middle", transform: `rotate(-90 14 ${middle})` }, y.label),
  );
  const plot = s("g", {});
  svg.append(axes, plot);
  return { svg, plot, sx, sy, width, height, margin: MARGIN };
}

function tickText(value) {
  if (value && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3)) return value.toExponential().replace("e+", "e");
  return String(Number(value.toPrecision(6)));
}

/** A metric's name with its unit and which way is better. */
export function axisLabel(name, direction) {
  const unit = unitOf(name);
  const better = { maximize: " (more is better)", minimize: " (less is better)" }[direction] ?? "";
  return name + (unit && !name.includes(unit) ? `, ${unit}` : "") + better;
}

export function circles(points, radius) {
  const round = (x) => Math.round(x * 10) / 10;
  return points
    .map(([x, y]) => `M${round(x - radius)} ${round(y)}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0`)
    .join("");
}

export function path(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

export function star(x, y, radius) {
  const points = [];
  for (let i = 0; i < 10; i++) {
    const r = i % 2 ? radius * 0.42 : radius;
    const angle = (Math.PI * i) / 5 - Math.PI / 2;
    points.push([x + r * Math.cos(angle), y + r * Math.sin(angle)]);
  }
  return `${path(points)}Z`;
}

export function diamond(x, y, radius) {
  return `M${x} ${y - radius}L${x + radius} ${y}L${x} ${y + radius}L${x - radius} ${y}Z`;
}

/** A legend: symbols with their words. */
export function legend(entries) {
  const symbol = (draw, kind) =>
    s("svg", { width: 18, height: 18, viewBox: "0 0 18 18", "aria-hidden": "true" }, s("path", { class: kind, d: draw }));
  return h("ul", { class: "legend" }, entries.map(([kind, draw, words]) => h("li", {}, symbol(draw, kind), words)));
}

/** Draw now, and again whenever the place has another width. */
export function responsive(draw) {
  const place = h("div", { class: "plot" });
  let last = 0;
  const again = () => {
    const width = Math.max(280, Math.round(place.clientWidth || 640));
    last = width;
    place.replaceChildren(draw(width));
  };
  new ResizeObserver(() => {
    if (place.clientWidth && Math.abs(Math.max(280, place.clientWidth) - last) > 4) again();
  }).observe(place);
  place.redraw = again;
  return place;
}

/** Bars of shares from 0 to 1, each with its name and value. */
export function bars(caption, entries) {
  return h(
    "dl",
    { class: "bars", "aria-label": caption },
    entries.map(([name, share, words]) => {
      const bar = s("svg", { class: "bar", width: "100%", height: 14, preserveAspectRatio: "none", viewBox: "0 0 100 14", "aria-hidden": "true" });
      bar.append(s("rect", { class: "bar-back", width: 100, height: 14 }), s("rect", { class: "bar-fill", width: Math.max(0.3, share * 100), height: 14 }));
      return [h("dt", {}, name), h("dd", {}, bar, h("span", {}, words ?? short(share)))];
    }),
  );
}
