// What mattered, how it was learnt, where the time went, what failed, and how to do it again.
import { axisLabel, bars, chart, circles, legend, path, responsive, ticksOf } from "./chart.js";
import { duration, h, plural, s, select, short, smallTable, withInterval, withUnit } from "./dom.js";

const HUES = 8; // classes of colours

/** How much each setting explains of a metric, and the metric over one setting. */
export function mattered(sweep) {
  const metrics = Object.keys(sweep.importance).filter((metric) => sweep.importance[metric].length);
  if (!metrics.length) return h("p", {}, "Too few candidates were measured with different settings to say what mattered (at least 6 are needed).");
  const state = { metric: metrics[0], setting: sweep.importance[metrics[0]][0].setting };
  const place = h("div");
  const draw = () => {
    const shares = sweep.importance[state.metric];
    if (!shares.some(({ setting }) => setting === state.setting)) state.setting = shares[0].setting;
    place.replaceChildren(
      h("div", { class: "controls" }, select("Metric", metrics.map((metric) => [metric, metric]), state.metric, (metric) => { state.metric = metric; draw(); })),
      h("p", { class: "note" }, "The share of the variance between candidates that a setting explains alone, corrected for chance (epsilon squared). Shares of settings that go together overlap."),
      bars(`What explains ${state.metric}`, shares.slice(0, 12).map(({ setting, share }) => [setting, share, `${Math.round(share * 100)} %`])),
      h("div", { class: "controls" }, select("Setting", shares.map(({ setting }) => [setting, setting]), state.setting, (setting) => { state.setting = setting; draw(); })),
      responsive((width) => overSetting(sweep, state, width)),
    );
  };
  draw();
  return place;
}

function overSetting(sweep, { metric, setting }, width) {
  const column = sweep.byName.get(setting);
  const known = sweep.candidates.filter((entry) => metric in entry.values);
  const numbers = column.type === "number" && known.every((entry) => column.at(entry.row) !== null || true) && known.some((entry) => column.at(entry.row) !== null);
  const words = numbers ? [] : [...new Set(known.map((entry) => String(column.at(entry.row) ?? "–")))].sort();
  const shown = numbers ? known.filter((entry) => column.at(entry.row) !== null) : known;
  const jitter = (entry) => (((parseInt(entry.id.slice(0, 6), 36) || 0) % 100) / 100 - 0.5) * 0.3;
  const at = (entry) => (numbers ? column.at(entry.row) : words.indexOf(String(column.at(entry.row) ?? "–")) + jitter(entry));
  const values = numbers ? shown.map(at) : [-0.5, words.length - 0.5];
  const wide = numbers && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) >= 8;
  const made = chart({
    width, height: 300, label: `${metric} over ${setting}`,
    x: { values, log: wide, label: numbers ? axisLabel(setting) : setting, format: numbers ? null : (tick) => words[tick] ?? "" },
    y: { values: shown.map((entry) => entry.values[metric]), log: false, label: axisLabel(metric, sweep.direction(metric)) },
  });
  made.plot.append(s("path", { class: "point in", d: circles(shown.map((entry) => [made.sx.at(at(entry)), made.sy.at(entry.values[metric])]), 4) }));
  return made.svg;
}

/** Lines of several series, each [[x, y], ...] with a class, over the same axes. */
function lines(width, series, { x, y, label, logX = false, dots = false }) {
  const all = series.flatMap(({ points }) => points);
  const made = chart({
    width, height: 280, label,
    x: { values: all.map(([px]) => px), log: logX, label: x },
    y: { values: all.map(([, py]) => py), log: false, label: y },
  });
  for (const { points, kind, title } of series) {
    const pixels = points.map(([px, py]) => [made.sx.at(px), made.sy.at(py)]);
    const line = s("path", { class: `line ${kind}`, d: path(pixels) });
    line.append(s("title", {}, title));
    made.plot.append(line);
    if (dots) made.plot.append(s("path", { class: `dots ${kind}`, d: circles(pixels, 3) }));
  }
  return made.svg;
}

export function curves(sweep, found) {
  const { adapters, score, left_out: left } = sweep.curves;
  if (!adapters.length) return h("p", {}, "No training was recorded.");
  const rowOf = new Map();
  for (let i = 0; i < sweep.rows; i++) {
    const adapter = sweep.cell(i, "adapter");
    if (adapter !== null && !rowOf.has(adapter)) rowOf.set(adapter, i);
  }
  const place = h("div");
  const draw = () => {
    const choice = found();
    const own = choice.winner && sweep.cell(sweep.entryOf.get(choice.winner).row, "adapter");
    const series = (name) =>
      adapters
        .filter((one) => one[name].length)
        .sort((a, b) => (a.adapter === own) - (b.adapter === own))
        .map((one) => ({
          points: one[name], kind: one.adapter === own ? "winner-line" : "other-line",
          title: rowOf.has(one.adapter) ? String(sweep.cell(rowOf.get(one.adapter), "settings")).split(" | ")[0] : one.adapter,
        }));
    const [loss, scores] = [series("loss"), series("score")];
    place.replaceChildren(
      h("div", { class: "pair" },
        loss.length ? h("figure", {}, responsive((width) => lines(width, loss, { x: "optimiser step", y: "training loss, nats a token", label: `Training loss of ${plural(loss.length, "adapter")} by step` })), h("figcaption", {}, "Training loss")) : "",
        scores.length ? h("figure", {}, responsive((width) => lines(width, scores, { x: "optimiser step", y: score, dots: true, label: `${score} of ${plural(scores.length, "adapter")} on validation by step` })), h("figcaption", {}, `${score} on validation`)) : ""),
      legend([["line winner-line", "M1 9H17", "the winner's adapter"], ["line other-line", "M1 9H17", "others"]]),
      left ? h("p", { class: "note" }, `${plural(left, "adapter")} more ${left === 1 ? "is" : "are"} left out.`) : "",
    );
  };
  return { place, draw };
}

export function progress(sweep) {
  const kept = sweep.progress;
  if (!kept) return h("p", {}, "Fewer than two candidates were measured in all objectives.");
  const total = kept.seconds.at(-1);
  const [unit, per] = total > 7200 ? ["hours", 3600] : total > 120 ? ["minutes", 60] : ["seconds", 1];
  const points = [];
  kept.seconds.forEach((second, i) => {
    if (i) points.push([second / per, kept.volume[i - 1]]);
    points.push([second / per, kept.volume[i]]);
  });
  return [
    responsive((width) => lines(width, [{ points, kind: "winner-line", title: "hypervolume" }], { x: `${unit} since the first candidate began`, y: "hypervolume, share of the box", label: `Hypervolume of the front over time: ${short(kept.volume.at(-1))} at the end` })),
    h("p", { class: "note" }, `The share of the box between the best and the worst value of each objective seen that the front covers: ${short(kept.volume.at(-1))} after ${duration(total)} and ${plural(kept.measured.at(-1), "measured candidate")}. It last grew after ${duration(kept.seconds.at(-2) ?? 0)}.`),
  ];
}

/** Each graph once: its latency with the interval, and what else ran meanwhile. */
export function latencies(sweep) {
  const graphs = new Map();
  for (const entry of [...sweep.candidates, ...(sweep.base ? [sweep.base] : [])]) {
    if (entry.values.itl_ms_p50 === undefined) continue;
    const name = entry.graph ?? entry.id;
    if (!graphs.has(name)) graphs.set(name, { entry, count: 0 });
    graphs.get(name).count++;
  }
  if (!graphs.size) return h("p", {}, "Nothing was timed.");
  const all = [...graphs.values()].sort((a, b) => a.entry.values.itl_ms_p50 - b.entry.values.itl_ms_p50);
  const cell = (entry, name) => sweep.cell(entry.row, name);
  const recipe = (entry) => String(cell(entry, "settings") ?? "").split("| ").slice(entry.row === sweep.base?.row || !String(cell(entry, "settings")).includes("| ") ? 0 : 1).join("| ") || "untouched";
  const rows = all.slice(0, 100).map(({ entry, count }) => [
    recipe(entry), String(entry.graph ?? "").slice(0, 8),
    withInterval("itl_ms_p50", entry.values.itl_ms_p50, entry.intervals.itl_ms_p50),
    withInterval("ttft_ms_p50", entry.values.ttft_ms_p50, entry.intervals.ttft_ms_p50),
    short(cell(entry, "processes")), short(cell(entry, "foreign_cpu")), short(cell(entry, "load_avg")), String(count),
  ]);
  const processes = sweep.timings.filter(({ processes: each }) => each.length);
  return [
    responsive((width) => dotplot(width, all.slice(0, 40), recipe, processes)),
    h("p", { class: "note" }, "Bars: the 95 % interval over processes. Small dots: what single fresh processes measured; hollow where other programs kept more than 0.2 cores busy."),
    smallTable("Latency of each graph", ["recipe", "graph", "itl_ms_p50", "ttft_ms_p50", "processes", "foreign cores", "load", "candidates"], rows, [2, 3, 4, 5, 6, 7]),
  ];
}

function dotplot(width, all, recipe, timings) {
  const line = 26;
  const left = Math.min(280, width * 0.42);
  const height = all.length * line + 50;
  const own = (entry) => timings.filter(({ graph }) => graph === String(entry.graph ?? "").split(" ")[0]).flatMap(({ processes }) => processes);
  const values = all.flatMap(({ entry }) => [entry.values.itl_ms_p50, ...(entry.intervals.itl_ms_p50 ?? [])]);
  const high = Math.max(...values) * 1.05;
  const at = (x) => left + (Math.min(x, high) / high) * (width - left - 16);
  const svg = s("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Milliseconds a token of ${plural(all.length, "graph")}; the table below has the numbers` });
  const letters = Math.floor((left - 12) / 7);
  all.forEach(({ entry }, i) => {
    const y = 18 + i * line;
    const name = recipe(entry);
    svg.append(s("text", { x: left - 10, y: y + 4, "text-anchor": "end" }, name.length > letters ? `${name.slice(0, letters - 1)}…` : name));
    svg.append(s("line", { class: "grid", x1: left, x2: width - 16, y1: y, y2: y }));
    for (const [itl, , foreign] of own(entry)) if (itl !== null) svg.append(s("circle", { class: foreign > 0.2 ? "process busy" : "process", cx: at(itl), cy: y, r: 2.5 }));
    const interval = entry.intervals.itl_ms_p50;
    if (interval) svg.append(s("line", { class: "interval", x1: at(interval[0]), x2: at(interval[1]), y1: y, y2: y }));
    svg.append(s("circle", { class: "point front", cx: at(entry.values.itl_ms_p50), cy: y, r: 5 }));
  });
  const y = height - 26;
  for (const tick of ticksOf(0, high, false, Math.max(3, Math.floor((width - left) / 90)))) svg.append(s("text", { x: at(tick), y, "text-anchor": "middle" }, short(tick)));
  svg.append(s("text", { class: "title", x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, "median time between tokens, ms"));
  return svg;
}

export function timeline(sweep) {
  const totals = Object.entries(sweep.timeline.totals);
  const wall = sweep.runs.reduce((sum, { wall_s: seconds }) => sum + (seconds ?? 0), 0);
  const parts = [];
  if (wall) parts.push(h("p", {}, `${plural(sweep.runs.length, "run")} of the command took ${duration(wall)} together.`));
  if (!totals.length) {
    const costs = Object.keys(sweep.stages).map((stage) => [stage, Array.from({ length: sweep.rows }, (_, i) => sweep.cell(i, `cost_${stage}_s`) ?? 0).reduce((a, b) => a + b, 0)]);
    const sum = costs.reduce((a, [, seconds]) => a + seconds, 0);
    if (!sum) return [...parts, h("p", {}, "No stage was recorded.")];
    return [...parts, bars("Seconds by stage", costs.filter(([, x]) => x).sort((a, b) => b[1] - a[1]).map(([stage, seconds]) => [sweep.stages[stage], seconds / sum, `${duration(seconds)}, ${Math.round((seconds / sum) * 100)} %`]))];
  }
  const sum = totals.reduce((a, [, seconds]) => a + seconds, 0);
  parts.push(bars("Time by stage", totals.map(([stage, seconds]) => [sweep.stages[stage] ?? stage, seconds / sum, `${duration(seconds)}, ${Math.round((seconds / sum) * 100)} %`])));
  const stages = totals.map(([stage]) => stage);
  parts.push(responsive((width) => gantt(width, sweep.timeline.spans, stages)));
  parts.push(h("p", { class: "note" }, "Each bar is one stage that ran; outlined: a timing, beside which nothing else of the sweep ran.", sweep.timeline.left_out ? ` ${sweep.timeline.left_out} earlier ones are left out.` : ""));
  return parts;
}

function gantt(width, spans, stages) {
  const line = 22;
  const left = 70;
  const height = stages.length * line + 34;
  const end = Math.max(...spans.map(([, , ended]) => ended), 1);
  const start = Math.min(...spans.map(([, began]) => began));
  const at = (second) => left + ((second - start) / (end - start || 1)) * (width - left - 12);
  const svg = s("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "When each stage ran" });
  stages.forEach((stage, i) => {
    const y = 6 + i * line;
    svg.append(s("text", { x: left - 8, y: y + 13, "text-anchor": "end" }, stage));
    svg.append(s("line", { class: "grid", x1: left, x2: width - 12, y1: y + line - 3, y2: y + line - 3 }));
    for (const [name, began, ended, alone] of spans) {
      if (name === stage) svg.append(s("rect", { class: `span hue-${i % HUES}${alone ? " alone" : ""}`, x: at(began), y: y + 1, width: Math.max(1, at(ended) - at(began)), height: line - 7 }));
    }
  });
  for (const share of [0, 0.5, 1]) svg.append(s("text", { x: at(start + (end - start) * share), y: height - 8, "text-anchor": share === 1 ? "end" : share ? "middle" : "start" }, duration((end - start) * share)));
  return svg;
}

export function failures(sweep) {
  const rows = [];
  for (let i = 0; i < sweep.rows; i++) if (!["ok", "stopped"].includes(sweep.cell(i, "status"))) rows.push(i);
  if (!rows.length) return h("p", {}, "No candidate failed or was given up.");
  const reasons = new Map();
  for (const i of rows) {
    const words = `${sweep.cell(i, "status")}: ${sweep.cell(i, "error") ?? sweep.statuses[sweep.cell(i, "status")] ?? ""}`;
    if (!reasons.has(words)) reasons.set(words, []);
    reasons.get(words).push(i);
  }
  const shown = [...reasons].sort((a, b) => b[1].length - a[1].length);
  return [
    smallTable("Why candidates were not fully measured", ["candidates", "reason", "for example"], shown.slice(0, 50).map(([words, which]) => [String(which.length), words, `${sweep.cell(which[0], "candidate").slice(0, 8)} ${sweep.cell(which[0], "settings") || "the untouched model"}`]), [0]),
    shown.length > 50 ? h("p", { class: "note" }, `${shown.length - 50} more reasons are in the table of all candidates, column error.`) : "",
    Object.entries(sweep.logs).map(([name, text]) => h("details", {}, h("summary", {}, `Log of ${name.slice(0, 8)}, its last lines`), h("pre", { tabindex: "0" }, text))),
  ];
}

export function reproduce(sweep) {
  const machine = sweep.machine ?? {};
  const facts = [...Object.entries(machine.hardware ?? {}), ["python", machine.python], ...Object.entries(machine.packages ?? {})].filter(([, value]) => value !== null && value !== undefined);
  return [
    h("p", {}, "Save the sweep file below as sweep.yaml, beside the data that it names, and run:"),
    h("pre", { tabindex: "0" }, `autotune run sweep.yaml\nautotune select results/${sweep.name}\nautotune report results/${sweep.name}`),
    h("details", {}, h("summary", {}, "The sweep file, every default spelled out"), h("pre", { tabindex: "0" }, sweep.sweep)),
    facts.length ? h("details", {}, h("summary", {}, "The machine and the versions"), smallTable("Machine and versions", ["what", "value"], facts.map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value) : String(value)]))) : "",
    h("details", {}, h("summary", {}, "What autotune select said"), h("pre", { tabindex: "0" }, sweep.explained)),
    h("p", { class: "note" }, `Made by autotune ${sweep.version} at ${sweep.made} from ${sweep.folder}/. Intervals are 95 %. The column table of results.csv is in the project's results/README.md.`),
  ];
}
