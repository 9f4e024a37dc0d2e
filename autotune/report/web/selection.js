// The rule of the winner, as autotune/analysis/selection.py states and explains it: the cheapest of those that the data
// cannot tell from the best. A test compares the two on random limits and preferences.
import { gap, threshold, uncertain } from "./limits.js";
import { againstLeader, intervalP, pairedFamily, pairedRatio, twoProportionP, welchP } from "./statistics.js";

const PROPORTIONS = ["accuracy", "exact_match", "f1_micro"];
const LOGARITHMIC = ["perplexity"];
const EXACT = ["size_mb"];
const PROCESSES = 5; // that a timing has at least, where a row does not say
const ITEMS = 100; // behind a score, where a row does not say
const INEXACT = 1.5; // by which p-values of paired outcomes other than 0 and 1 are multiplied
const NEAREST = 3;
const KEPT = 200; // choices that are kept, so that the way back of a slider is free

/** How finalists that were timed in turns relate to each other: `samples` by graph and metric, one number a round. */
export class Turns {
  constructor({ anchor, samples, again, stretch }) {
    Object.assign(this, { anchor, samples, again, stretch: stretch ?? 1 });
    this.known = new Map();
  }

  ratio(metric, graph, other) {
    if (!(metric in this.again) || !(graph in this.samples) || !(other in this.samples)) return null;
    const key = JSON.stringify([metric, graph, other]);
    if (!this.known.has(key)) {
      const [own, others] = [this.samples[graph][metric], this.samples[other][metric]];
      const both = Math.min(own.length, others.length);
      this.known.set(key, pairedRatio(own.slice(0, both), others.slice(0, both), this.stretch));
    }
    return this.known.get(key);
  }

  noiseFloor(metric) {
    if (!(metric in this.again)) return 0;
    const ratio = pairedRatio(this.again[metric], this.samples[this.anchor][metric], this.stretch);
    return Math.max(ratio.high, 1 / ratio.low) - 1;
  }
}

/**
 * The choice among `entries`. `sweep` has `base` (an entry, or null), `turns` (or null), `kinds` (of each metric: score,
 * latency or footprint) and `outcomes` (of each score that has some: `Outcomes`). An entry has an id, values, intervals,
 * counts, the index of its row of outcomes by metric, and its graph. `objectives`: pairs of a metric and a direction.
 */
export function choose(entries, objectives, limits, sweep, alpha = 0.05) {
  const { base, turns } = sweep;
  const gaps = entries.map((entry) => limits.map((limit) => gap(limit, entry.values[limit.metric], base)));
  let feasible = entries.filter(
    (entry, i) =>
      gaps[i].every((each) => each !== null && each <= 0) &&
      objectives.every(([metric]) => Number.isFinite(entry.values[metric])),
  );
  if (!feasible.length) {
    const near = nearest(entries, limits, gaps, base);
    return { winner: null, leader: null, steps: [], uncertain: [], feasible: [], nearest: near };
  }
  feasible = inRelation(feasible, objectives, turns, sweep);
  feasible.sort((a, b) => {
    for (const [metric, direction] of objectives) {
      const order = loss(a, metric, direction) - loss(b, metric, direction);
      if (order) return order;
    }
    return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
  });
  // The rest depends on who keeps the limits alone, and a limit that moves mostly leaves them the same.
  const key = JSON.stringify([objectives, alpha, feasible.map((entry) => entry.id)]);
  sweep.known ??= new Map();
  if (!sweep.known.has(key)) {
    if (sweep.known.size >= KEPT) sweep.known.clear();
    sweep.known.set(key, decided(feasible, objectives, sweep, alpha));
  }
  const { winner, steps } = sweep.known.get(key);
  return {
    winner: winner.id,
    leader: feasible[0].id,
    steps,
    uncertain: limits.filter(
      (limit) => limit.metric in winner.intervals && uncertain(limit, winner.intervals[limit.metric], base),
    ),
    feasible: feasible.map((entry) => entry.id),
    nearest: [],
  };
}

/** The winner among those that keep the limits, best first, and the steps that led to it. */
function decided(feasible, objectives, sweep, alpha) {
  const noisy = objectives.map(([metric]) => metric).filter((metric) => hasNoise(metric, feasible, sweep));
  const families = new Map();
  const steps = [];
  let left = feasible;
  for (const [metric, direction] of objectives) {
    const ordered = [...left].sort((a, b) => loss(a, metric, direction) - loss(b, metric, direction));
    let family = left;
    if (noisy.includes(metric)) {
      const timed = isTimed(metric, sweep);
      if (!families.has(timed)) families.set(timed, left);
      family = families.get(timed);
    }
    const found = step(metric, ordered, family, alpha / Math.max(1, noisy.length), sweep);
    steps.push(found);
    left = left.filter((entry) => !found.beaten.has(entry.id));
    if (left.length === 1) break;
  }
  return { winner: left[0], steps };
}

function loss(entry, metric, direction) {
  return direction === "maximize" ? -entry.values[metric] : entry.values[metric];
}

function isTimed(metric, sweep) {
  return metric in sweep.kinds && sweep.kinds[metric] !== "score" && !EXACT.includes(metric);
}

function place(metric, entry, sweep) {
  return isTimed(metric, sweep) ? entry.graph || entry.id : entry.id;
}

function hasNoise(metric, entries, sweep) {
  if (EXACT.includes(metric) || entries.length < 2) return false;
  if (!isTimed(metric, sweep)) {
    return entries.some((e) => metric in e.outcomes || metric in e.intervals || metric in e.counts);
  }
  const timed = sweep.turns !== null && metric in sweep.turns.again;
  return (
    new Set(entries.map((e) => place(metric, e, sweep))).size > 1 &&
    (timed || entries.some((e) => metric in e.intervals))
  );
}

function inRelation(entries, objectives, turns, sweep) {
  const anchor = turns && entries.find((entry) => entry.graph === turns.anchor);
  if (!anchor) return [...entries];
  const latencies = objectives.map(([metric]) => metric).filter((metric) => sweep.kinds[metric] === "latency");
  return entries.map((entry) => {
    const values = { ...entry.values };
    for (const metric of latencies) {
      const ratio = turns.ratio(metric, entry.graph ?? "", turns.anchor);
      if (ratio !== null) values[metric] = ratio.value * anchor.values[metric];
    }
    return { ...entry, values };
  });
}

function step(metric, entries, family, alpha, sweep) {
  const [leader, ...others] = entries;
  const beaten = new Map();
  const methods = new Set();
  let adjusted = others.length && !isTimed(metric, sweep) ? paired(metric, leader, family, entries, alpha, sweep) : null;
  if (adjusted !== null) {
    methods.add("paired");
  } else {
    const pValues = new Map();
    for (const other of others) {
      const [method, verdict] = compare(metric, leader, other, sweep);
      methods.add(method);
      if (typeof verdict === "boolean") {
        if (verdict) beaten.set(other.id, null);
      } else {
        const where = place(metric, other, sweep);
        pValues.set(where, Math.max(verdict, pValues.get(where) ?? 0));
      }
    }
    const own = place(metric, leader, sweep);
    const more = new Set(family.map((e) => place(metric, e, sweep)).filter((e) => !pValues.has(e) && e !== own)).size;
    const found = againstLeader(pValues, more);
    adjusted = new Map(others.map((other) => [other.id, found.get(place(metric, other, sweep)) ?? 1]));
  }
  for (const other of others) {
    const p = adjusted.get(other.id);
    const differs = other.values[metric] !== leader.values[metric];
    if (p <= alpha && differs && !beaten.has(other.id)) beaten.set(other.id, p);
  }
  return {
    metric,
    leader: leader.id,
    tied: others.filter((other) => !beaten.has(other.id)).map((other) => other.id),
    beaten,
    method: [...methods].sort().join("+"),
    alpha,
  };
}

function paired(metric, leader, family, entries, alpha, sweep) {
  const outcomes = sweep.outcomes[metric];
  if (!outcomes || !family.every((entry) => metric in entry.outcomes)) return null;
  const rows = family.map((entry) => entry.outcomes[metric]);
  if (rows.some((row) => outcomes.length(row) !== outcomes.length(rows[0]))) return null;
  const first = family.findIndex((entry) => entry.id === leader.id);
  const among = new Set(entries.map((entry) => entry.id));
  // Where outcomes and score disagree on who is better, the outcomes prove nothing.
  const compared = family.map((entry, i) => {
    const means = outcomes.means[rows[first]] - outcomes.means[rows[i]];
    return among.has(entry.id) && means * (family[first].values[metric] - entry.values[metric]) >= 0;
  });
  const wider = rows.every((row) => outcomes.binary[row]) ? 1 : INEXACT;
  const p = pairedFamily(outcomes, rows, first, alpha / wider, compared);
  return new Map(family.map((entry, i) => [entry.id, Math.min(1, wider * p[i])]));
}

/** How two entries were compared, and a p-value or else whether the other is beaten. */
function compare(metric, leader, other, sweep) {
  const [best, value] = [leader.values[metric], other.values[metric]];
  const known = metric in leader.intervals && metric in other.intervals;
  if (EXACT.includes(metric)) return ["exact", value !== best];
  if (!isTimed(metric, sweep)) {
    const both = [leader, other];
    const found = paired(metric, leader, both, both, 0, sweep);
    if (found !== null) return ["paired", found.get(other.id)];
    if (PROPORTIONS.includes(metric) && metric in leader.counts && metric in other.counts) {
      return ["unpaired", twoProportionP(best, leader.counts[metric], value, other.counts[metric])];
    }
    return known ? ["intervals", byIntervals(metric, leader, other)] : ["face value", value !== best];
  }
  if (leader.graph !== null && leader.graph === other.graph) return ["timing", 1];
  const { turns } = sweep;
  const alike =
    sweep.kinds[metric] === "latency" &&
    turns !== null &&
    Math.abs(value - best) <= turns.noiseFloor(metric) * Math.abs(best) * (1 + 1e-12);
  const ratio = turns === null ? null : turns.ratio(metric, other.graph ?? "", leader.graph ?? "");
  if (ratio !== null) return ["in turns", alike ? 1 : ratio.p];
  if (alike) return ["timing", 1];
  if (!known) return ["face value", value !== best];
  return ["timing", welchP(value - best, ...half(metric, leader), ...half(metric, other))];
}

function half(metric, entry) {
  const [low, high] = entry.intervals[metric];
  const width = (high - low) / 2;
  const samples = Math.max(2, entry.counts[metric] ?? PROCESSES);
  return [low > 0 ? width : Math.max(width, high - entry.values[metric]), samples];
}

function byIntervals(metric, leader, other) {
  const logarithm = (x) => (x > 0 ? Math.log(x) : -Infinity);
  const [first, second] = [leader, other].map((entry) => {
    const [low, high] = entry.intervals[metric];
    const points = [low, entry.values[metric], high];
    return LOGARITHMIC.includes(metric) ? points.map(logarithm) : points;
  });
  const [low, best, high] = first;
  const [otherLow, value, otherHigh] = second;
  const sides = best > value ? [best - low, otherHigh - value] : [high - best, value - otherLow];
  const n = Math.min(leader.counts[metric] ?? ITEMS, other.counts[metric] ?? ITEMS);
  return intervalP(best - value, Math.max(0, sides[0]), Math.max(0, sides[1]), n);
}

function nearest(entries, limits, gaps, base) {
  const ranked = entries.flatMap((entry, i) => {
    const misses = limits.map((limit, k) => ({ limit, by: gaps[i][k] })).filter(({ by }) => by !== null && by > 0);
    if (!misses.length) return [];
    // Relative to a threshold of 0 any miss would be endless: it counts as whole.
    const worst = Math.max(...misses.map(({ limit, by }) => by / (Math.abs(threshold(limit, base) ?? 0) || by)));
    return [{ lacks: gaps[i].includes(null) ? 1 : 0, worst, id: entry.id, misses }];
  });
  ranked.sort((a, b) => a.lacks - b.lacks || a.worst - b.worst || (a.id < b.id ? -1 : 1));
  return ranked.slice(0, NEAREST).map(({ id, misses }) => ({ id, misses }));
}
