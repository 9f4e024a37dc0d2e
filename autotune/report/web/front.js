// The front over any two columns, and the limits as sliders.
import { axisLabel, chart, circles, diamond, legend, path, responsive, star } from "./chart.js";
import { frontOf } from "./decode.js";
import { h, plural, s, short, smallTable, withInterval, withUnit } from "./dom.js";
import { limitOf, threshold } from "./limits.js";
import { fullPrecision, nameOf } from "./summary.js";

const MOST_BARS = 150; // error bars drawn; with more candidates only those of the front have them
const NEAR = 26; // pixels within which a point is pointed at

/** The limits of a sweep by a key each: one metric may have several. */
export function keyed(limits) {
  return new Map(limits.map((limit, i) => [`given ${i}`, limit]));
}

/** A number of four digits that is not below (`Math.ceil`), or not above (`Math.floor`), a value. */
function rounded(value, way) {
  const power = 10 ** (Math.floor(Math.log10(Math.abs(value) || 1)) - 3);
  return Number((way(value / power) * power || 0).toPrecision(5));
}

/** The controls of limits: `state.limits` maps keys to limits; `changed` is called on every change. */
export function limitControls(sweep, state, changed) {
  const list = h("div", { class: "limits" });
  let added = 0;
  const draw = () => list.replaceChildren(...[...state.limits].map(row));
  const row = ([key, limit]) => {
    const values = sweep.candidates.map((entry) => entry.values[limit.metric]).filter(Number.isFinite);
    const now = threshold(limit, sweep.base);
    const ends = [...values, ...(now === null ? [] : [now])];
    const [low, high] = ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
    const span = high - low || Math.abs(high) || 1;
    const [from, to] = [low - span * 0.02, high + span * 0.02];
    const slider = h("input", {
      type: "range", min: 0, max: 1000, step: 1, value: now === null ? 0 : Math.round(((now - from) / (to - from)) * 1000),
      "aria-label": `${limit.metric} ${limit.op}`, "aria-valuetext": short(now),
    });
    const box = h("input", { type: "text", class: "bound", value: limit.bound, "aria-label": `Bound of ${limit.metric} ${limit.op}`, spellcheck: "false" });
    const set = (bound) => {
      const next = limitOf(limit.metric, limit.op, bound);
      box.setAttribute("aria-invalid", next === null);
      if (next === null) return;
      state.limits.set(key, next);
      slider.setAttribute("aria-valuetext", short(threshold(next, sweep.base)));
      changed();
    };
    slider.addEventListener("input", () => {
      const value = from + (slider.value / 1000) * (to - from);
      box.value = String(Number(value.toPrecision(4)));
      set(box.value);
    });
    box.addEventListener("change", () => {
      set(box.value);
      const next = state.limits.get(key);
      const at = threshold(next, sweep.base);
      if (at !== null) slider.value = Math.round(((at - from) / (to - from)) * 1000);
    });
    const remove = () => {
      state.limits.delete(key);
      draw();
      changed();
    };
    return h(
      "div", { class: "limit" },
      h("span", { class: "limit-name" }, `${limit.metric} ${limit.op}`), box, slider,
      h("button", { class: "quiet", onclick: remove, "aria-label": `Remove the limit ${limit.metric} ${limit.op}` }, "Remove"),
    );
  };
  const choices = sweep.metrics.filter(({ name }) => sweep.candidates.some((entry) => name in entry.values));
  const add = h("select", { "aria-label": "Add a limit" }, h("option", { value: "" }, "Add a limit …"), choices.map(({ name }) => h("option", { value: name }, name)));
  add.addEventListener("change", () => {
    const metric = add.value;
    if (!metric) return;
    const most = sweep.direction(metric) === "minimize";
    const values = sweep.candidates.map((entry) => entry.values[metric]).filter(Number.isFinite);
    // It begins where every candidate keeps it.
    const bound = most ? rounded(Math.max(...values), Math.ceil) : rounded(Math.min(...values), Math.floor);
    const limit = limitOf(metric, most ? "<=" : ">=", String(bound));
    state.limits.set(`added ${added++}`, limit);
    add.value = "";
    draw();
    changed();
  });
  draw();
  return { list, add, draw };
}

/** The chart of two columns. `state` has x, y, logs and bars; `found()` is the choice now; `open` shows a candidate. */
export function frontChart(sweep, state, found, open) {
  const tip = h("div", { class: "tip", hidden: true });
  const live = h("p", { class: "hidden", role: "status" });
  let points = [];
  let at = -1;
  let area = null;

  const draw = (width) => {
    const choice = found();
    const { x, y } = state;
    const entries = [...sweep.candidates, ...(sweep.base ? [sweep.base] : [])];
    const value = (entry, name) => entry.values[name] ?? sweep.cell(entry.row, name);
    const shown = entries.filter((entry) => [x, y].every((name) => Number.isFinite(value(entry, name))));
    const feasible = new Set(choice.feasible);
    const tied = new Set(choice.steps.length ? choice.steps.at(-1).tied : []);
    const inside = shown.filter((entry) => feasible.has(entry.id) && entry !== sweep.base);
    const directions = [sweep.direction(x), sweep.direction(y)];
    const flat = directions.every(Boolean);
    const edge = flat ? frontOf(inside.map((entry) => [value(entry, x), value(entry, y)]), directions).map((i) => inside[i]) : [];
    const onFront = new Set(edge.map(({ id }) => id));
    // A scale holds the intervals that are drawn, but is not made useless by one that is wide.
    const barred = state.bars ? (shown.length > MOST_BARS ? shown.filter(({ id }) => onFront.has(id) || id === choice.winner) : shown) : [];
    const span = (name) => {
      const own = shown.map((entry) => value(entry, name));
      const [least, most] = [Math.min(...own), Math.max(...own)];
      const room = 0.5 * (most - least);
      const ends = barred.flatMap((entry) => entry.intervals[name] ?? []);
      return [...own, ...ends.filter((end) => end >= least - room && end <= most + room)];
    };
    const made = chart({
      width, height: Math.min(460, Math.max(300, width * 0.62)), role: "img",
      label: `${y} over ${x}: ${plural(shown.length, "candidate")}, ${onFront.size} on the front of the two`,
      x: { values: span(x), log: state.logX, label: axisLabel(x, directions[0]) },
      y: { values: span(y), log: state.logY, label: axisLabel(y, directions[1]) },
    });
    points = shown
      .map((entry) => ({ entry, px: made.sx.at(value(entry, x)), py: made.sy.at(value(entry, y)) }))
      .sort((a, b) => a.px - b.px || a.py - b.py);
    drawLimits(made, choice);
    const withBars = new Set(barred);
    made.plot.append(s("path", { class: "error-bars", d: points.filter(({ entry }) => withBars.has(entry)).map((point) => errorBars(point, made)).join("") }));
    if (edge.length > 1) made.plot.append(s("path", { class: "front-line", d: stairs(edge, value, made, directions) }));
    const group = (kind, keep, radius) =>
      made.plot.append(s("path", { class: kind, d: circles(points.filter(({ entry }) => entry !== sweep.base && keep(entry)).map(({ px, py }) => [px, py]), radius) }));
    group("point out", ({ id }) => !feasible.has(id), 3.5);
    group("point in", ({ id }) => feasible.has(id) && !onFront.has(id), 4);
    group("point front", ({ id }) => onFront.has(id), 5);
    group("point tied", ({ id }) => tied.has(id), 8);
    for (const { entry, px, py } of points) {
      if (entry === sweep.base) made.plot.append(s("path", { class: "point base", d: diamond(px, py, 7) }));
      if (entry.id === choice.winner && entry !== sweep.base) made.plot.append(s("path", { class: "point winner-star", d: star(px, py, 11) }));
    }
    made.svg.append(s("circle", { class: "pointed", r: 10, cx: -50, cy: -50 }));
    area = made;
    return made.svg;
  };
  const drawLimits = (made, choice) => {
    for (const limit of choice.limits) {
      const bound = threshold(limit, sweep.base);
      if (bound === null) continue;
      const { left, right, top, bottom } = made.margin;
      if (limit.metric === state.x && bound >= made.sx.low && bound <= made.sx.high) {
        const px = made.sx.at(bound);
        made.plot.append(s("line", { class: "limit-line", x1: px, x2: px, y1: top, y2: made.height - bottom }));
      }
      if (limit.metric === state.y && bound >= made.sy.low && bound <= made.sy.high) {
        const py = made.sy.at(bound);
        made.plot.append(s("line", { class: "limit-line", x1: left, x2: made.width - right, y1: py, y2: py }));
      }
    }
  };
  const errorBars = ({ entry, px, py }, made) => {
    const [h1, h2] = [entry.intervals[state.x], entry.intervals[state.y]];
    const clip = (scale, value) => scale.at(Math.min(scale.high, Math.max(scale.low, value))).toFixed(1);
    const across = h1 ? `M${clip(made.sx, h1[0])} ${py.toFixed(1)}H${clip(made.sx, h1[1])}` : "";
    return across + (h2 ? `M${px.toFixed(1)} ${clip(made.sy, h2[0])}V${clip(made.sy, h2[1])}` : "");
  };
  const stairs = (edge, value, made, directions) => {
    const corners = edge.map((entry) => [made.sx.at(value(entry, state.x)), made.sy.at(value(entry, state.y))]).sort((a, b) => a[0] - b[0]);
    const line = [corners[0]];
    for (let i = 1; i < corners.length; i++) {
      // What is dominated by neither of two neighbours begins at the corner between them that is worse in both.
      line.push(directions[0] === "minimize" ? [corners[i][0], corners[i - 1][1]] : [corners[i - 1][0], corners[i][1]], corners[i]);
    }
    return path(line);
  };

  const plot = responsive(draw);
  const point = (index) => {
    at = index;
    const chosen = points[index];
    const ring = area?.svg.querySelector(".pointed");
    tip.hidden = !chosen;
    if (!chosen) {
      ring?.setAttribute("cx", -50);
      return;
    }
    const { entry, px, py } = chosen;
    ring.setAttribute("cx", px);
    ring.setAttribute("cy", py);
    const names = [...new Set([state.x, state.y, ...found().objectives.map(([metric]) => metric)])];
    const lines = names.map((name) => `${name} ${withInterval(name, entry.values[name] ?? sweep.cell(entry.row, name), entry.intervals[name])}`);
    tip.replaceChildren(h("strong", {}, `${entry === sweep.base ? "the untouched model" : entry.id.slice(0, 8)}`), h("div", {}, nameOf(sweep, entry)), ...lines.map((line) => h("div", {}, line)));
    const left = px > area.width / 2;
    tip.style.left = left ? "auto" : `${px + 14}px`;
    tip.style.right = left ? `${area.width - px + 14}px` : "auto";
    tip.style.top = `${Math.max(0, py - 30)}px`;
    return [entry.id.slice(0, 8), nameOf(sweep, entry), ...lines].join(", ");
  };
  const under = (event) => {
    const box = area.svg.getBoundingClientRect();
    const [mx, my] = [event.clientX - box.left, event.clientY - box.top];
    let [best, distance] = [-1, NEAR * NEAR];
    points.forEach(({ px, py }, i) => {
      const d = (px - mx) ** 2 + (py - my) ** 2;
      if (d < distance) [best, distance] = [i, d];
    });
    return best;
  };
  const holder = h(
    "div",
    { class: "front-holder", tabindex: "0", role: "application", "aria-label": "Chart of the candidates: left and right go from one to the next, Enter shows all of it" },
    plot, tip,
  );
  holder.addEventListener("pointermove", (event) => area && point(under(event)));
  holder.addEventListener("pointerleave", () => point(-1));
  holder.addEventListener("click", (event) => {
    const index = area ? under(event) : -1;
    if (index >= 0) open(points[index].entry.row);
  });
  holder.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (by && points.length) {
      event.preventDefault();
      live.textContent = point(at < 0 ? (by > 0 ? 0 : points.length - 1) : (at + by + points.length) % points.length);
    } else if (event.key === "Enter" && points[at]) {
      event.preventDefault(); // or the same key presses the dialog's first button
      open(points[at].entry.row);
    } else if (event.key === "Escape") point(-1);
  });
  return { holder: h("div", {}, holder, live, key()), redraw: () => { point(-1); plot.redraw(); } };
}

function key() {
  return legend([
    ["point winner-star", star(9, 9, 8), "winner"],
    ["point tied", circles([[9, 9]], 7), "ties with it to the end"],
    ["point front", circles([[9, 9]], 5), "on the front of the two columns"],
    ["point in", circles([[9, 9]], 4), "keeps the limits"],
    ["point out", circles([[9, 9]], 3.5), "breaks a limit"],
    ["point base", diamond(9, 9, 7), "untouched model"],
  ]);
}

/** The settings of the winner and of what it is compared with: only those that differ. */
export function settingsTable(sweep, found) {
  const winner = found.winner && sweep.entryOf.get(found.winner);
  if (!winner) return null;
  const tied = found.steps.flatMap((step) => step.tied.map((id) => [`ties by ${step.metric}`, sweep.entryOf.get(id)]));
  const named = [["winner", winner], ["best by the first objective", sweep.entryOf.get(found.leader)], ["same adapter at fp32", fullPrecision(sweep, winner)], ...tied];
  const seen = new Set();
  const rows = named.filter(([, entry]) => entry && !seen.has(entry.id) && seen.add(entry.id)).slice(0, 12);
  const columns = sweep.columns.filter(({ name }) => /^(lora|build|session)_/.test(name) || name === "target");
  const differing = columns.filter(({ at }) => new Set(rows.map(([, entry]) => at(entry.row))).size > 1);
  const metrics = found.objectives.map(([metric]) => metric);
  const heads = ["", "candidate", ...differing.map(({ name }) => name), ...metrics];
  const lines = rows.map(([role, entry]) => [
    role, entry.id.slice(0, 8), ...differing.map(({ at }) => short(at(entry.row)) || "–"),
    ...metrics.map((metric) => withInterval(metric, entry.values[metric], entry.intervals[metric])),
  ]);
  const same = columns.length - differing.length;
  return [
    smallTable("The winner beside what comes near it: only settings that differ", heads, lines, metrics.map((_, i) => 2 + differing.length + i)),
    h("p", { class: "note" }, `${plural(same, "other setting")} ${same === 1 ? "is" : "are"} the same in these rows, or empty.`),
  ];
}

/** Everything about one candidate, in a dialog. */
export function candidateDialog(sweep, row) {
  const cells = sweep.columns.filter(({ at }) => at(row) !== null);
  const close = h("button", { onclick: () => dialog.close() }, "Close");
  const dialog = h(
    "dialog", { "aria-labelledby": "dialog-title" },
    h("h2", { id: "dialog-title" }, `Candidate ${sweep.cell(row, "candidate")}`),
    h("p", {}, sweep.cell(row, "settings") || "the untouched model"),
    close,
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "All columns of the candidate" },
      h("table", {}, h("tbody", {}, cells.map(({ name, meaning, type, at }) => h("tr", {}, h("th", { scope: "row", title: meaning }, name), h("td", { class: type === "number" ? "number" : null }, typeof at(row) === "number" ? withUnit(name, at(row)) : String(at(row)))))))),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

