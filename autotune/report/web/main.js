// The page: its state, its sections, and what is drawn again when something changes.
import { axisLabel, chart, circles, legend, responsive, star } from "./chart.js";
import { frontOf, Sweep, unpack } from "./decode.js";
import { check, h, plural, s, section, select, short, smallTable, withInterval, withUnit } from "./dom.js";
import { candidateDialog, frontChart, keyed, limitControls, settingsTable } from "./front.js";
import { grid } from "./grid.js";
import { itemsView } from "./items.js";
import { parseLimit } from "./limits.js";
import { curves, failures, latencies, mattered, progress, reproduce, timeline } from "./sections.js";
import { nameOf, solve, verdict } from "./summary.js";

/** The columns that the table shows first. */
function firstColumns(sweep) {
  const metrics = sweep.objectives.map(([metric]) => metric);
  const wanted = ["candidate", "trial", "status", "settings", ...metrics, "ttft_ms_p50", "peak_memory_mb", "error"];
  return sweep.columns.map(({ name }) => name).filter((name) => wanted.includes(name)).sort((a, b) => wanted.indexOf(a) - wanted.indexOf(b));
}

/** The headings of sections that have a shorter name among the links. */
const TITLES = {
  front: "Front and limits", items: "Item by item", curves: "Learning curves", progress: "Hypervolume over time", latency: "Latency of each graph",
  time: "Where the time went", table: "All candidates", reproduce: "How to reproduce",
};

/** What a section draws; where damaged data hinders it, the others are still there. */
function guarded(draw) {
  try {
    return draw();
  } catch (error) {
    return h("p", {}, `This could not be drawn from the data of the folder: ${error.message}`);
  }
}

/** All sections of one sweep. */
function show(sweep) {
  const numeric = sweep.columns.filter(({ name, type, varies }) => type === "number" && (varies || sweep.metricByName.has(name)));
  const axes = numeric.map(({ name }) => name);
  const objectives = sweep.objectives.map(([metric]) => metric).filter((name) => axes.includes(name));
  const state = {
    x: objectives[1] ?? objectives[0] ?? axes[0], y: objectives[0] ?? axes[0], logX: false, logY: false, bars: true,
    limits: keyed(sweep.given.filter(Boolean)), prefer: "",
  };
  let choice = null;
  const decide = () => { choice = solve(sweep, [...state.limits.values()], state.prefer); };
  decide();
  const found = () => choice;
  const open = (row) => candidateDialog(sweep, row);

  const result = h("div", { class: "verdict" });
  const differing = h("div");
  const said = h("p", { class: "choice", role: "status" });
  const front = frontChart(sweep, state, found, open);
  const items = itemsView(sweep, found);
  const learnt = curves(sweep, found);
  const table = grid(sweep, firstColumns(sweep), { open, mark: (row) => (choice.winner !== null && sweep.entryOf.get(choice.winner).row === row ? "is-winner" : null) });

  let waiting = 0;
  const changed = () => {
    decide();
    const winner = choice.winner && sweep.entryOf.get(choice.winner);
    const kept = `${choice.feasible.length} of ${plural(sweep.candidates.length, "candidate")} ${choice.feasible.length === 1 ? "keeps" : "keep"} the limits. `;
    const near = choice.nearest[0];
    said.replaceChildren(
      kept,
      winner
        ? h("strong", {}, `Winner: ${nameOf(sweep, winner)} (${winner.id.slice(0, 8)})`)
        : h("strong", {}, near ? `No winner; the nearest, ${near.id.slice(0, 8)}, misses '${near.misses[0].limit.text}' by ${short(near.misses[0].by)}` : "No winner"),
      winner ? `: ${choice.objectives.map(([metric]) => `${metric} ${withInterval(metric, winner.values[metric], winner.intervals[metric])}`).join(", ")}.` : ".",
    );
    front.redraw();
    // What is further down the page follows when the slider rests.
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      result.replaceChildren(...verdict(sweep, choice).flat(3).filter(Boolean));
      differing.replaceChildren(...[settingsTable(sweep, choice) ?? ""].flat());
      items.draw();
      learnt.draw?.();
    }, 60);
  };
  const limits = limitControls(sweep, state, changed);
  const reset = () => {
    state.limits = keyed(sweep.given.filter(Boolean));
    state.prefer = "";
    prefer.querySelector("select").value = "";
    limits.draw();
    changed();
  };
  const measured = sweep.metrics.filter(({ name }) => sweep.candidates.some((entry) => name in entry.values)).map(({ name }) => name);
  const prefer = select("Prefer", [["", `as the sweep: ${objectives.join(", ")}`], ...measured.map((name) => [name, name])], "", (name) => { state.prefer = name; changed(); });
  const axis = (label, key, log) =>
    h("div", { class: "axis" },
      select(label, axes.map((name) => [name, name]), state[key], (name) => { state[key] = name; front.redraw(); }),
      check("log", state[log], (on) => { state[log] = on; front.redraw(); }));
  result.replaceChildren(...verdict(sweep, choice).flat(3).filter(Boolean));
  const sections = [
    ["result", "Result", result],
    ["front", "Front", said, h("div", { class: "front-grid" },
      h("div", {}, front.holder),
      h("div", { class: "panel" },
        h("h3", {}, "Limits"), h("p", { class: "note" }, "Move a limit: the choice is made again at once, by the rule of autotune select. A bound is a number, or base + 0.2, 0.9 * base."),
        limits.list, limits.add, prefer,
        h("h3", {}, "Axes"), axis("Across", "x", "logX"), axis("Up", "y", "logY"),
        check("95 % intervals", state.bars, (on) => { state.bars = on; front.redraw(); }),
        h("button", { onclick: reset }, "Back to the sweep's own limits")),
    ), differing],
    ["items", "Items", items.place],
    ["mattered", "What mattered", guarded(() => mattered(sweep))],
    ["curves", "Curves", learnt.place ?? learnt],
    ["progress", "Hypervolume", guarded(() => progress(sweep))],
    ["latency", "Latency", guarded(() => latencies(sweep))],
    ["time", "Time", guarded(() => timeline(sweep))],
    ["failures", "Failures", guarded(() => failures(sweep))],
    ["table", "Table", table],
    ["reproduce", "Reproduce", guarded(() => reproduce(sweep))],
  ];
  const main = sections.map(([id, title, ...content]) => section(id, TITLES[id] ?? title, ...content));
  const nav = sections.map(([id, title]) => h("li", {}, h("a", { href: `#${id}` }, title)));
  return { main, nav, start: changed, select: (texts, name) => solve(sweep, texts.map(parseLimit), name) };
}

/** Several folders beside each other: their winners, and all candidates over the same two metrics. */
function comparison(sweeps, change) {
  const shared = sweeps[0].metrics.map(({ name }) => name).filter((name) => sweeps.every((sweep) => sweep.candidates.some((entry) => name in entry.values)));
  const winners = sweeps.map((sweep) => solve(sweep, sweep.given.filter(Boolean), ""));
  const aims = sweeps.flatMap((sweep) => sweep.objectives.map(([metric]) => metric));
  const listed = [...new Set([...aims, "ttft_ms_p50", "peak_memory_mb"])].filter((name) => shared.includes(name));
  const heads = ["sweep", "winner", "measured", ...listed];
  const rows = sweeps.map((sweep, i) => {
    const winner = winners[i].winner && sweep.entryOf.get(winners[i].winner);
    return [
      h("button", { class: "link", onclick: () => change(i) }, sweep.label), winner ? `${winner.id.slice(0, 8)} ${nameOf(sweep, winner)}` : "none keeps its limits",
      String(sweep.candidates.length), ...listed.map((name) => (winner ? withInterval(name, winner.values[name], winner.intervals[name]) : "")),
    ];
  });
  const own = sweeps[0].objectives.map(([metric]) => metric).filter((name) => shared.includes(name));
  const state = { x: own[1] ?? shared[0], y: own[0] ?? shared[0] };
  const plot = responsive((width) => {
    const all = sweeps.flatMap((sweep) => sweep.candidates);
    const made = chart({
      width, height: 340, label: `${state.y} over ${state.x} of all sweeps`,
      x: { values: all.map((entry) => entry.values[state.x]), label: axisLabel(state.x, sweeps[0].direction(state.x)) },
      y: { values: all.map((entry) => entry.values[state.y]), label: axisLabel(state.y, sweeps[0].direction(state.y)) },
    });
    sweeps.forEach((sweep, i) => {
      const known = sweep.candidates.filter((entry) => [state.x, state.y].every((name) => name in entry.values));
      const edge = new Set(frontOf(known.map((entry) => [entry.values[state.x], entry.values[state.y]]), [sweep.direction(state.x), sweep.direction(state.y)]));
      const at = (entry) => [made.sx.at(entry.values[state.x]), made.sy.at(entry.values[state.y])];
      made.plot.append(s("path", { class: `set hue-${i % 8} faint`, d: circles(known.filter((_, k) => !edge.has(k)).map(at), 3.5) }));
      made.plot.append(s("path", { class: `set hue-${i % 8}`, d: circles(known.filter((_, k) => edge.has(k)).map(at), 5) }));
      const winner = sweep.entryOf.get(winners[i].winner);
      if (winner && known.includes(winner)) made.plot.append(s("path", { class: `set hue-${i % 8}`, d: star(...at(winner), 11) }));
    });
    return made.svg;
  });
  const pick = (label, key) => select(label, shared.map((name) => [name, name]), state[key], (name) => { state[key] = name; plot.redraw(); });
  return section(
    "compare", "The sweeps compared",
    smallTable("The winner of each sweep under its own limits", heads, rows, listed.map((_, i) => 3 + i)),
    shared.length ? [h("div", { class: "controls" }, pick("Across", "x"), pick("Up", "y")), plot, legend(sweeps.map((sweep, i) => [`set hue-${i % 8}`, circles([[9, 9]], 6), sweep.label]))] : h("p", {}, "They share no measured metric."),
    h("p", { class: "note" }, "Full dots: the front of each sweep over the two; star: its winner. Scores compare only where the sweeps were scored on the same items, latencies only where they were timed on the same machine."),
  );
}

function header(title, sweeps, state, change) {
  const themes = ["system", "light", "dark"];
  const theme = h("button", { class: "quiet", onclick: () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % 3];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    theme.textContent = `Theme: ${next}`;
  } }, "Theme: system");
  const sweep = sweeps[state.at];
  const follow = check("Reload every minute", location.hash === "#follow", (on) => { location.hash = on ? "follow" : ""; if (on) again(); });
  return h("header", {},
    h("div", {}, h("h1", {}, title), h("p", { class: "note" }, `${sweep.running ? "still running when this was written; " : ""}${plural(sweep.rows, "row")}, written ${sweep.made}`)),
    h("div", { class: "controls" },
      sweeps.length > 1 ? select("Sweep", sweeps.map((each, i) => [String(i), each.label]), String(state.at), (i) => change(Number(i))) : null,
      sweeps.some(({ running }) => running) ? follow : null,
      h("button", { class: "quiet", onclick: () => print() }, "Print"), theme));
}

/** A page of a running sweep is written anew meanwhile: whoever follows it sees that. */
function again() {
  setTimeout(() => { if (location.hash === "#follow") location.reload(); }, 60_000);
}

async function start() {
  const sweeps = (await unpack(document.getElementById("data").textContent)).map((data) => new Sweep(data));
  const names = sweeps.map(({ name }) => name);
  for (const sweep of sweeps) sweep.label = names.filter((name) => name === sweep.name).length > 1 ? `${sweep.name} (${sweep.folder})` : sweep.name;
  const state = { at: 0 };
  const change = (at) => {
    state.at = at;
    const page = show(sweeps[at]);
    const compared = sweeps.length > 1 ? [comparison(sweeps, change)] : [];
    const nav = [...(compared.length ? [h("li", {}, h("a", { href: "#compare" }, "Compared"))] : []), ...page.nav];
    const title = sweeps.length > 1 ? sweeps.map(({ label }) => label).join(", ") : sweeps[at].label;
    document.body.replaceChildren(
      h("a", { class: "skip", href: "#main" }, "Skip to the result"),
      header(title, sweeps, state, change),
      h("nav", { "aria-label": "Sections" }, h("ul", {}, nav)),
      h("main", { id: "main", tabindex: "-1" }, compared, page.main),
    );
    page.start();
    globalThis.autotune = { sweep: sweeps[at], select: page.select };
    document.documentElement.dataset.ready = "yes";
  };
  change(0);
  requestAnimationFrame(() => performance.mark("ready"));
  if (location.hash === "#follow") again();
}

if (globalThis.document) start();
