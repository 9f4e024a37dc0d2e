// The data of the page: unpacked once, and read by column.
import { parseLimit } from "./limits.js";
import { Turns } from "./selection.js";
import { Outcomes } from "./statistics.js";

/** The plain data behind base64 of a zlib stream. */
export async function unpack(text) {
  const stream = new Blob([octetsOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

/** One column: `at(i)` is the cell of row i, null where it is missing. */
function columnOf({ name, type, meaning, constant, values, words, of }) {
  let at = () => constant;
  if (values) at = (i) => values[i];
  else if (words) at = (i) => words[of[i]];
  return { name, type, meaning, at, words, of, varies: constant === undefined };
}

/** One sweep: its columns, and what the rule of the winner needs. */
export class Sweep {
  constructor(data) {
    Object.assign(this, data);
    this.columns = data.columns.map(columnOf);
    this.byName = new Map(this.columns.map((column) => [column.name, column]));
    this.metricByName = new Map(this.metrics.map((metric) => [metric.name, metric]));
    this.kinds = Object.fromEntries(this.metrics.map(({ name, kind }) => [name, kind]));
    this.turns = data.turns ? new Turns(data.turns) : null;
    this.given = this.limits.map(parseLimit);
    this.outcomes = {};
    this.without = Object.keys(data.outcomes).filter((metric) => data.outcomes[metric] === "too many");
    const places = {};
    for (const [metric, kept] of Object.entries(data.outcomes)) {
      if (kept === "too many") continue;
      this.outcomes[metric] = new Outcomes(kept.bits ? kept.bits.map(wordsOf) : numbersOf(kept), kept.items);
      places[metric] = kept.of;
    }
    // The columns of each metric that has some, found once for all rows.
    this.measured = this.metrics
      .map(({ name, low, high, behind }) => ({ name, columns: [name, low, high, behind].map((each) => this.byName.get(each)) }))
      .filter(({ columns }) => columns.some(Boolean));
    const [ids, graphs] = ["candidate", "served"].map((name) => this.byName.get(name));
    const finished = data.entries.map((row, place) => this.entry(row, place, places, ids, graphs));
    this.base = data.base === null ? null : finished.find((entry) => entry.row === data.base);
    this.candidates = finished.filter((entry) => this.cell(entry.row, "trial") !== 0);
    this.entryOf = new Map(finished.map((entry) => [entry.id, entry]));
    for (const entry of this.candidates) this.entryOf.set(entry.id, entry);
  }

  cell(row, name) {
    return this.byName.get(name)?.at(row) ?? null;
  }

  entry(row, place, places, ids, graphs) {
    const entry = { id: ids?.at(row) ?? null, row, values: {}, intervals: {}, counts: {}, outcomes: {} };
    entry.graph = graphs?.at(row) ?? null;
    for (const { name, columns } of this.measured) {
      const [value, low, high, count] = columns.map((column) => column?.at(row) ?? null);
      if (value !== null) entry.values[name] = value;
      if (low !== null && high !== null) entry.intervals[name] = [low, high];
      if (count !== null) entry.counts[name] = count;
    }
    for (const metric in places) if (places[metric][place] >= 0) entry.outcomes[metric] = places[metric][place];
    return entry;
  }

  direction(metric) {
    return this.metricByName.get(metric)?.direction ?? null;
  }
}

function octetsOf(text) {
  const letters = atob(text);
  const octets = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) octets[i] = letters.charCodeAt(i); // of megabytes: a call for each would take longer
  return octets;
}

/** Rows of numbers, in the form that `_numbers` of autotune/report/outcomes.py explains. */
function numbersOf({ rows, planes, divisor, width }) {
  if (rows) return rows.map(({ values, words, of }) => values ?? of.map((place) => words[place]));
  const octets = octetsOf(planes);
  const count = octets.length / 4;
  const whole = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const zigzag = (octets[i] | (octets[count + i] << 8) | (octets[2 * count + i] << 16) | (octets[3 * count + i] << 24)) >>> 0;
    whole[i] = (zigzag >>> 1) ^ -(zigzag & 1);
    if (i >= width) whole[i] += whole[i % width];
  }
  return Array.from({ length: count / width }, (_, row) => Float64Array.from(whole.subarray(row * width, (row + 1) * width), (x) => x / 1e6 / divisor));
}

function wordsOf(text) {
  const octets = octetsOf(text);
  const whole = new Uint8Array(Math.ceil(octets.length / 4) * 4);
  whole.set(octets);
  return new Uint32Array(whole.buffer);
}

/** The places on the front: what no other point beats in one of the metrics without being worse in another. */
export function frontOf(points, directions) {
  const losses = points.map((point) => point.map((value, i) => (directions[i] === "maximize" ? -value : value)));
  const order = losses.map((_, i) => i).filter((i) => losses[i].every(Number.isFinite));
  order.sort((a, b) => {
    for (let k = 0; k < directions.length; k++) if (losses[a][k] !== losses[b][k]) return losses[a][k] - losses[b][k];
    return 0;
  });
  const front = [];
  for (const i of order) {
    const beaten = front.some(
      (j) => losses[j].every((x, k) => x <= losses[i][k]) && losses[j].some((x, k) => x < losses[i][k]),
    );
    if (!beaten) front.push(i);
  }
  return front;
}
