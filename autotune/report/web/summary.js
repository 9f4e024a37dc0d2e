// What happened, what is true, and what to do first: the choice in words.
import { threshold, uncertain } from "./limits.js";
import { choose } from "./selection.js";
import { h, plural, short, signed, withInterval, withUnit } from "./dom.js";
import { mcnemarExact, Z_95 } from "./statistics.js";

const POWER = 0.8416212335729143; // the normal quantile of 0.8
const BUSY = 0.2; // cores of other programs above which a timing counts as disturbed

/** Two candidates on the same items: who alone is right how often, the difference with its 95 % interval, and p. */
export function headToHead(sweep, a, b, metric) {
  const outcomes = sweep.outcomes[metric];
  if (!outcomes || !(metric in a.outcomes) || !(metric in b.outcomes)) return null;
  const [first, second] = [a.outcomes[metric], b.outcomes[metric]];
  const n = outcomes.length(first);
  if (n !== outcomes.length(second)) return null;
  const { sum, squares, above, below } = outcomes.away(first, second);
  const mean = sum / n;
  const error = n > 1 ? Math.sqrt(Math.max(0, squares / n - mean * mean) / (n - 1)) : NaN;
  const binary = outcomes.binary[first] && outcomes.binary[second];
  return {
    n, above, below, mean, error, binary,
    get p() { // exact, and so asked for where it is shown only
      return binary ? mcnemarExact(above, below) : null;
    },
  };
}

/** How many items would tell two candidates apart that differ as they do now, with a power of 80 %. */
export function itemsNeeded({ n, mean, error }, alpha) {
  if (!mean || !(error > 0)) return null;
  // The normal quantile of 1 - alpha / 2 by bisection on the tail, for the alpha that the step had.
  let [low, high] = [0, 10];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (tail(middle) > alpha / 2) low = middle;
    else high = middle;
  }
  return Math.ceil(n * ((low + POWER) * (error / Math.abs(mean))) ** 2);
}

function tail(z) {
  // Abramowitz and Stegun, 26.2.17: absolute error below 7.5e-8, enough for a number of items.
  const t = 1 / (1 + 0.2316419 * z);
  const polynomial = t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return (Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI)) * polynomial;
}

/** The choice under what the user has set: objectives in their order, limits, and who would win. */
export function solve(sweep, limits, prefer) {
  const own = sweep.objectives;
  const first = prefer && sweep.metricByName.has(prefer) ? [[prefer, sweep.direction(prefer)]] : [];
  const objectives = [...first, ...own.filter(([metric]) => metric !== prefer)];
  return { objectives, limits, ...choose(sweep.candidates, objectives, limits, sweep) };
}

export function nameOf(sweep, entry) {
  const settings = sweep.cell(entry.row, "settings");
  const untouched = sweep.cell(entry.row, "kind") === "base";
  return untouched ? `the untouched model${settings ? ` at ${settings}` : ""}` : settings || entry.id;
}

/** The same adapter at fp32, or for a winner without an adapter the untouched model at fp32. */
export function fullPrecision(sweep, winner) {
  const adapter = sweep.cell(winner.row, "adapter");
  if (sweep.cell(winner.row, "build_precision") === "fp32") return null;
  return sweep.candidates.find(
    (entry) => sweep.cell(entry.row, "build_precision") === "fp32" && adapter !== null && sweep.cell(entry.row, "adapter") === adapter,
  );
}

function against(sweep, winner, other, words) {
  if (!other || other.id === winner.id) return null;
  const parts = [];
  for (const [metric, direction] of sweep.objectives) {
    const [own, value] = [winner.values[metric], other.values[metric]];
    if (own === undefined || value === undefined) continue;
    const pair = headToHead(sweep, winner, other, metric);
    if (pair && ["accuracy", "exact_match", "f1_micro", "rouge_l", "custom", "f1"].includes(metric)) {
      const low = pair.mean - Z_95 * pair.error;
      const high = pair.mean + Z_95 * pair.error;
      const p = pair.p === null ? "" : `, p ${pair.p < 0.001 ? "< 0.001" : `= ${short(pair.p)}`}`;
      parts.push(`${metric} ${signed(own - value)} [${short(low)}, ${short(high)}] on the same ${pair.n} items${p}`);
    } else if (sweep.kinds[metric] === "score") {
      parts.push(`${metric} ${signed(own - value)}`);
    } else if (value > 0 && own > 0) {
      // In turns the machine has one pace; while it searched it may have had several.
      const apart = sweep.kinds[metric] === "latency" && other.graph && other.graph !== winner.graph;
      const turns = apart ? sweep.turns?.ratio(metric, winner.graph, other.graph) : null;
      const ratio = turns?.value ?? own / value;
      const better = direction === "minimize" ? ratio < 1 : ratio > 1;
      const worse = better || ratio === 1 ? "" : ", worse";
      parts.push(turns
        ? `${metric} ${short(ratio)} times [${short(turns.low)}, ${short(turns.high)}] in turns${worse}`
        : `${metric} ${short(ratio)} times (${withUnit(metric, own)} for ${withUnit(metric, value)}${worse})`);
    }
  }
  return parts.length ? h("li", {}, h("strong", {}, `${words}: `), parts.join("; "), ".") : null;
}

const PACE_MOVED = 1.25; // as in present/tables.py

/** Says so if the winner was timed at another pace of the machine in turns than in the search. */
function paceLine(winner, row) {
  const [then, now] = [winner.values.itl_ms_p50, row?.itl_ms_p50];
  if (!then || !now || Math.max(now / then, then / now) < PACE_MOVED) return null;
  return h("li", {}, `The machine was ${now > then ? "slower" : "faster"} in these turns: ${withUnit("itl_ms_p50", now)} for the winner, ${withUnit("itl_ms_p50", then)} in the search. To compare two models, use times taken in turns.`);
}

/** The tiles of the winner's objectives and limits. */
function tiles(sweep, winner, found) {
  const names = [...new Set([...found.objectives.map(([metric]) => metric), ...found.limits.map(({ metric }) => metric)])];
  return h(
    "dl",
    { class: "tiles" },
    names.map((name) => {
      const interval = winner.intervals[name];
      const range = interval ? `95 % interval ${short(interval[0])} to ${short(interval[1])}` : "";
      return h("div", {}, h("dt", {}, name), h("dd", {}, withUnit(name, winner.values[name])), h("dd", { class: "note" }, range));
    }),
  );
}

const METHODS = {
  paired: "on the same items",
  unpaired: "by unpaired intervals",
  intervals: "by unpaired intervals",
  "in turns": "timed in turns",
  timing: "by the intervals of their timings",
  exact: "exactly",
  "face value": "at face value: no interval was measured, so a difference may be noise",
};

function howFound(sweep, found) {
  return found.steps
    .filter((step) => step.tied.length || step.beaten.size)
    .map((step) => {
      const ways = step.method.split("+").map((way) => METHODS[way] ?? way).join(" and ");
      const tied = step.tied.length ? `${plural(step.tied.length, "other")} cannot be told from the best` : "none ties with the best";
      return h("li", {}, h("strong", {}, `By ${step.metric}`), ` (compared ${ways}): ${tied}, ${step.beaten.size} ${step.beaten.size === 1 ? "is" : "are"} worse.`);
    });
}

/** What the user could do next, most useful first. */
export function advice(sweep, found) {
  const todo = [];
  const say = (...parts) => todo.push(h("li", {}, ...parts));
  if (sweep.running) say("The sweep has not ended: it runs, or was killed. Run the same command to go on, and make the report again at the end.");
  const winner = found.winner && sweep.entryOf.get(found.winner);
  if (!winner) {
    const [near] = found.nearest;
    if (near) {
      const miss = near.misses.map(({ limit, by }) => `'${limit.text}' by ${short(by)}`).join(" and ");
      say(`Relax a limit, or continue the search: the nearest candidate, ${near.id.slice(0, 8)}, misses ${miss}.`);
    } else if (!found.limits.length || !sweep.candidates.length) say("No candidate was fully measured yet: look at the failures below.");
    return todo;
  }
  for (const limit of found.uncertain) {
    const [low, high] = winner.intervals[limit.metric];
    const sure = found.feasible
      .map((id) => sweep.entryOf.get(id))
      .find((entry) => entry.id !== winner.id && found.limits.every((each) => !(each.metric in entry.intervals) || !uncertain(each, entry.intervals[each.metric], sweep.base)));
    const choice = sure ? ` ${sure.id.slice(0, 8)} (${nameOf(sweep, sure)}) keeps all limits with certainty.` : "";
    say(`'${limit.text}' is uncertain: the winner's interval ${short(low)} to ${short(high)} contains the limit ${short(threshold(limit, sweep.base))}. Measure it on more items or timings before you rely on it.${choice}`);
  }
  for (const step of found.steps) {
    if (sweep.kinds[step.metric] !== "score") continue;
    const leader = sweep.entryOf.get(step.leader);
    // At the level of a family all of whose pairs count (Bonferroni), so that it is rather too many items than too few.
    const pairs = ((step.tied.length + 1) * step.tied.length) / 2;
    const rivals = step.tied
      .map((id) => ({ entry: sweep.entryOf.get(id), pair: headToHead(sweep, leader, sweep.entryOf.get(id), step.metric) }))
      .filter(({ pair }) => pair && pair.mean > 0)
      .map((rival) => ({ ...rival, items: itemsNeeded(rival.pair, (step.alpha || 0.05) / Math.max(1, pairs)) }))
      .filter(({ items, pair }) => items !== null && items > pair.n)
      .sort((a, b) => a.items - b.items)
      .slice(0, 3);
    if (rivals.length) {
      const words = rivals.map(({ entry, items }) => `${entry.id.slice(0, 8)} (${nameOf(sweep, entry)}): about ${items} items`);
      const have = headToHead(sweep, leader, rivals[0].entry, step.metric).n;
      say(`To resolve the tie by ${step.metric}, score these candidates on more than the present ${have} items. If a candidate really differs from the best (${leader.id.slice(0, 8)}) as much as observed, this many items are needed to show it: ${words.join("; ")}.`);
    }
  }
  const disturbed = sweep.candidates.filter((entry) => sweep.cell(entry.row, "foreign_cpu") > BUSY);
  if (disturbed.length) {
    const graphs = new Set(disturbed.map((entry) => entry.graph ?? entry.id)).size;
    say(`The timings of ${plural(graphs, "graph")} were made beside other work. Time them again on a quiet machine before you compare latencies.`);
  }
  const last = sweep.finalists.find(({ role }) => role === "winner");
  if (last && last.candidate === winner.id && last.verified === true) say("Take best/ from the results folder: it is this winner, and it was verified.");
  else if (last && last.candidate !== winner.id) say(`best/ in the results folder holds ${String(last.candidate).slice(0, 8)}, the winner under the sweep's own limits, not this one.`);
  return todo;
}

/** The first section: drawn again whenever the choice changes. */
export function verdict(sweep, found) {
  const ok = sweep.candidates.length;
  const counts = new Map();
  for (let i = 0; i < sweep.rows; i++) if (sweep.cell(i, "trial") !== 0) counts.set(sweep.cell(i, "status"), (counts.get(sweep.cell(i, "status")) ?? 0) + 1);
  const told = [...counts].filter(([status]) => status !== "ok").map(([status, count]) => `${count} ${status.replaceAll("_", " ")}`);
  const kept = found.feasible.length === ok ? "all of them keep" : `${found.feasible.length} of them ${found.feasible.length === 1 ? "keeps" : "keep"}`;
  const bounds = found.limits.length > 1 ? `all ${found.limits.length} limits` : "the limit";
  const happened = `${plural(ok, "candidate")} fully measured${told.length ? `, ${told.join(", ")}` : ""}.${found.limits.length && ok ? ` ${kept[0].toUpperCase()}${kept.slice(1)} ${bounds}.` : ""}`;
  const winner = found.winner && sweep.entryOf.get(found.winner);
  const todo = advice(sweep, found);
  const first = todo.length ? [h("h3", {}, "What to do first"), h("ul", {}, todo)] : [];
  if (!winner) {
    const misses = found.nearest.map(({ id, misses: missed }) =>
      h("li", {}, `${id.slice(0, 8)} ${nameOf(sweep, sweep.entryOf.get(id))}: misses ${missed.map(({ limit, by }) => `'${limit.text}' by ${short(by)}`).join("; ")}`),
    );
    const words = ok ? "No candidate keeps the limits." : "No candidate was fully measured.";
    return [h("p", { class: "winner none" }, words), h("h3", {}, "What happened"), h("p", {}, happened), misses.length ? [h("h3", {}, "The nearest"), h("ul", {}, misses)] : null, first];
  }
  const truths = [
    against(sweep, winner, sweep.base, "Against the untouched model"),
    against(sweep, winner, fullPrecision(sweep, winner), "Against the same adapter at fp32"),
    ...howFound(sweep, found),
    ...found.limits.map((limit) => {
      const unsure = found.uncertain.includes(limit);
      const text = withInterval(limit.metric, winner.values[limit.metric], winner.intervals[limit.metric]);
      return h("li", {}, h("strong", {}, `Limit ${limit.text}`), `: kept, ${text}${unsure ? "; uncertain, because the interval contains the limit" : ""}.`);
    }),
    ...sweep.without.map((metric) => h("li", {}, `${metric} is compared by unpaired intervals, because this folder has more outcomes of single items than can be compared in pairs.`)),
    ...finalLines(sweep, winner),
  ];
  return [
    h("p", { class: "winner" }, h("span", { class: "badge" }, "Winner"), " ", nameOf(sweep, winner), " ", h("span", { class: "note" }, `${winner.id.slice(0, 8)}, trial ${sweep.cell(winner.row, "trial")}`)),
    tiles(sweep, winner, found),
    h("h3", {}, "What happened"),
    h("p", {}, happened),
    h("h3", {}, "What is true"),
    h("ul", {}, truths),
    first,
  ];
}

/** What the finalists scored on the test split, which the search never saw. */
function finalLines(sweep, winner) {
  const score = sweep.objectives.map(([metric]) => metric).find((metric) => sweep.kinds[metric] === "score");
  const lines = sweep.finalists
    .filter((row) => score && row[score] !== undefined && (row.role === "base" || row.candidate === winner.id))
    .map((row) => `${row.role === "base" ? "the untouched model" : "the winner"} ${withInterval(score, row[score], row[`${score}_low`] === undefined ? null : [row[`${score}_low`], row[`${score}_high`]])} of ${row[`${score}_n`]} items`);
  const ratio = sweep.finalists.find((row) => row.candidate === winner.id && row.itl_ratio !== undefined);
  return [
    lines.length ? h("li", {}, h("strong", {}, `On the ${sweep.finalists[0].split ?? "test"} split, which the search never saw`), `: ${lines.join("; ")}.`) : null,
    ratio ? h("li", {}, h("strong", {}, "Timed in turns"), `: the winner takes ${short(ratio.itl_ratio)} [${short(ratio.itl_ratio_low)}, ${short(ratio.itl_ratio_high)}] of the untouched model's time between tokens, over ${ratio.rounds} rounds${ratio.noise_floor === undefined ? "" : `; noise floor ${(ratio.noise_floor * 100).toFixed(1)}\u00a0%`}.`) : null,
    ratio ? paceLine(winner, ratio) : null,
    ratio?.verified === true ? h("li", {}, `Verified: best/ answers ${ratio.verified_items} items as recorded.`) : null,
    ratio?.verified === false ? h("li", {}, `Not verified: ${ratio.verify_error ?? ""}`) : null,
  ];
}
