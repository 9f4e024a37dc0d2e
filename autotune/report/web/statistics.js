// The tests behind a choice: the same numbers as autotune/analysis/statistics.py and multiple_comparisons.py, which hold the
// sources of the formulas.
import { randomBytes } from "./draws.js";

export const RESAMPLES = 4000; // draws of a family's null distribution
export const MOST_COMPARED = 200; // candidates whose pairs are resampled together; a larger family is judged by bounds
const CHUNK = 1 << 20; // numbers drawn by one generator
const RADEMACHER = 3.1787; // 1 / (4 P(Z >= sqrt 2))
const SAME = 1e-12; // share of two outcomes' squares below which their difference is rounding
export const Z_95 = 1.9599639845400536; // the normal quantile of 0.975

/** The complementary error function, to about 1e-13 of its value: a series below 2, a continued fraction above. */
export function erfc(x) {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2) {
    let term = x;
    let sum = x;
    for (let n = 1; term > sum * 1e-17; n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  // erfc(x) = exp(-x²) / sqrt(pi) / (x + (1/2) / (x + (2/2) / (x + (3/2) / (x + ...))))
  let fraction = x;
  for (let k = 160; k >= 1; k--) fraction = x + k / 2 / fraction;
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / fraction;
}

/** An upper bound of P(|sum s_i d_i| >= t sqrt(sum d_i²)) over random signs. */
export function signsBound(t) {
  return Math.min(1, RADEMACHER * erfc(t / Math.SQRT2));
}

function tTwoSided(theta, df) {
  const sine = Math.sin(theta);
  const cosine = Math.cos(theta);
  const odd = df % 2;
  let term = odd ? cosine : 1;
  let total = 0;
  for (let k = 1; k <= Math.floor(df / 2); k++) {
    total += term;
    term *= cosine * cosine * (odd ? (2 * k) / (2 * k + 1) : (2 * k - 1) / (2 * k));
  }
  return odd ? (2 / Math.PI) * (theta + sine * total) : sine * total;
}

const quantiles = new Map();

/** Student's t with P(|T| <= t) = 0.95. */
export function tQuantile(df) {
  if (!quantiles.has(df)) {
    let low = 0;
    let high = Math.PI / 2;
    for (let i = 0; i < 64; i++) {
      const middle = (low + high) / 2;
      if (tTwoSided(middle, df) < 0.95) low = middle;
      else high = middle;
    }
    quantiles.set(df, Math.sqrt(df) * Math.tan(low));
  }
  return quantiles.get(df);
}

function tP(difference, error, df) {
  return Math.max(0, 1 - tTwoSided(Math.atan2(Math.abs(difference), error * Math.sqrt(df)), df));
}

/** Two means of which Student's intervals are known: half their widths, and the samples behind them. */
export function welchP(difference, halfA, nA, halfB, nB) {
  const unit = Math.max(halfA, halfB); // squares of numbers near either end of what a float holds would leave it
  if (difference === 0 || !Number.isFinite(halfA + halfB)) return 1;
  if (unit <= 0) return 0;
  const a = (halfA / unit / tQuantile(nA - 1)) ** 2;
  const b = (halfB / unit / tQuantile(nB - 1)) ** 2;
  const degrees = Math.floor((a + b) ** 2 / ((a * a) / (nA - 1) + (b * b) / (nB - 1)) + 1e-9);
  return tP(difference / unit, Math.sqrt(a + b), degrees);
}

/** Two scores of which only intervals are known; `sideA`, `sideB`: their distances from the ends that face the other. */
export function intervalP(difference, sideA, sideB, n) {
  const spread = Math.hypot(sideA, sideB) / Z_95;
  if (difference === 0 || !Number.isFinite(spread)) return 1;
  return spread > 0 ? tP(difference, spread, Math.max(1, Math.floor(n / 3))) : 0;
}

/** Two proportions from different items: the pooled z-test. */
export function twoProportionP(p1, n1, p2, n2) {
  if (p1 === p2) return 1;
  const pooled = (p1 * n1 + p2 * n2) / (n1 + n2);
  const variance = pooled * (1 - pooled) * (1 / n1 + 1 / n2);
  return variance <= 0 ? 1 : erfc(Math.abs((p1 - p2) / Math.sqrt(variance)) / Math.SQRT2);
}

/** The ratio of positive numbers measured in turns, with its interval and p-value; `stretch` widens the error. */
export function pairedRatio(a, b, stretch) {
  const logs = Array.from(a, (x, i) => Math.log(x) - Math.log(b[i]));
  const n = logs.length;
  const mean = logs.reduce((sum, x) => sum + x, 0) / n;
  const deviation = Math.sqrt(logs.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (n - 1));
  const error = (stretch * deviation) / Math.sqrt(n);
  const half = (stretch * tQuantile(n - 1) * deviation) / Math.sqrt(n);
  const theta = mean ? Math.atan2(Math.abs(mean), error * Math.sqrt(n - 1)) : 0;
  const p = Math.max(0, 1 - tTwoSided(theta, n - 1));
  return { value: Math.exp(mean), low: Math.exp(mean - half), high: Math.exp(mean + half), p };
}

/** The exact two-sided test of McNemar: items that only the one and only the other has right. */
export function mcnemarExact(onlyA, onlyB) {
  const n = onlyA + onlyB;
  let ways = 1n;
  let total = 1n;
  for (let k = 1; k <= Math.min(onlyA, onlyB); k++) {
    ways = (ways * BigInt(n - k + 1)) / BigInt(k);
    total += ways;
  }
  const above = total * 2n; // p = above / 2^n: the leading 64 bits are enough
  const spare = Math.max(0, above.toString(2).length - 64);
  return Math.min(1, Number(above >> BigInt(spare)) * 2 ** (spare - n));
}

/** Adjusted p-values of comparisons with a leader that the data chose; `others` never leave the family. */
export function againstLeader(pValues, others) {
  const adjusted = new Map();
  let largest = 0;
  const ordered = [...pValues].sort((a, b) => a[1] - b[1]);
  ordered.forEach(([name, p], rank) => {
    const left = pValues.size + 1 + others - rank;
    largest = Math.max(largest, Math.min(1, ((left * (left - 1)) / 2) * p));
    adjusted.set(name, largest);
  });
  return adjusted;
}

/**
 * The outcomes of one metric: each different row of outcomes once. What a draw sums up of a row is kept, because
 * neither the leader nor the limits change it.
 */
export class Outcomes {
  /** `rows`: arrays of numbers, or of 0 and 1 as bits in 32-bit words where `items` says how many. */
  constructor(rows, items = null) {
    this.rows = rows;
    this.items = items;
    this.means = rows.map((row) => (items === null ? row.reduce((a, b) => a + b, 0) / row.length : ones(row) / items));
    this.binary = rows.map((row) => items !== null || row.every((x) => x === 0 || x === 1));
    this.sums = new Map();
  }

  length(index) {
    return this.items ?? this.rows[index].length;
  }

  /** The sum of a row's differences from another, the sum of their squares, and of how many each is the greater. */
  away(index, other) {
    const a = this.rows[index];
    const b = this.rows[other];
    let above = 0;
    let below = 0;
    if (this.items !== null) {
      for (let k = 0; k < a.length; k++) {
        above += bits(a[k] & ~b[k]);
        below += bits(b[k] & ~a[k]);
      }
      return { sum: above - below, squares: above + below, above, below };
    }
    let sum = 0;
    let squares = 0;
    for (let k = 0; k < a.length; k++) {
      const d = a[k] - b[k];
      sum += d;
      squares += d * d;
      if (d > 0) above++;
      else if (d < 0) below++;
    }
    return { sum, squares, above, below };
  }

  /** What each draw of signs sums up of a row. */
  drawn(index) {
    if (!this.sums.has(index)) {
      const row = this.rows[index];
      const n = this.length(index);
      const width = Math.ceil(n / 8);
      const sums = new Float64Array(RESAMPLES);
      const own = this.items === null ? null : ones(row);
      const words = new Uint32Array(Math.ceil(width / 4));
      const octets = new Uint8Array(words.buffer);
      signs(n).forEach((draw, i) => {
        if (own !== null) {
          octets.set(draw);
          let both = 0;
          for (let k = 0; k < row.length; k++) both += bits(words[k] & row[k]);
          sums[i] = 2 * both - own;
        } else {
          let sum = 0;
          for (let k = 0; k < n; k++) sum += (draw[k >> 3] >> (7 - (k & 7))) & 1 ? row[k] : -row[k];
          sums[i] = sum;
        }
      });
      this.sums.set(index, sums);
    }
    return this.sums.get(index);
  }
}

function bits(word) {
  word -= (word >>> 1) & 0x55555555;
  word = (word & 0x33333333) + ((word >>> 2) & 0x33333333);
  return (((word + (word >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}

function ones(words) {
  let count = 0;
  for (const word of words) count += bits(word);
  return count;
}

const drawnSigns = new Map();

/** The random signs of all draws for n items: one bit an item, the first in the highest bit of the first octet. */
export function signs(n) {
  if (!drawnSigns.has(n)) {
    const width = Math.ceil(n / 8);
    const rows = Math.max(1, Math.floor(CHUNK / n));
    const draws = [];
    for (let part = 0, start = 0; start < RESAMPLES; part++, start += rows) {
      const count = Math.min(rows, RESAMPLES - start);
      const octets = randomBytes([0, part], count * width);
      for (let i = 0; i < count; i++) {
        const draw = octets.subarray(i * width, (i + 1) * width);
        if (n % 8) draw[width - 1] &= 0xff << (8 - (n % 8)); // what is beyond the last item is no sign
        draws.push(draw);
      }
    }
    drawnSigns.set(n, draws);
  }
  return drawnSigns.get(n);
}

/**
 * The adjusted p-values of differing from the leader, as `paired_family`. `members`: of each member of the family the
 * index of its row in `outcomes`; `compared`: which of them are candidates.
 */
export function pairedFamily(outcomes, members, first, alpha, compared) {
  const unique = [...new Set(members)];
  const placeOf = new Map(unique.map((row, place) => [row, place]));
  const own = placeOf.get(members[first]);
  const away = unique.map((row) => outcomes.away(row, unique[own]));
  const counted = new Set(members.filter((_, i) => compared[i]));
  const t = away.map(({ sum, squares }, place) =>
    squares > 0 && counted.has(unique[place]) ? Math.abs(sum) / Math.sqrt(squares) : 0,
  );
  const adjusted = stepDown(outcomes, unique, own, away, t, alpha);
  return members.map((row, i) => (compared[i] ? adjusted[placeOf.get(row)] : 1));
}

function stepDown(outcomes, unique, leader, away, t, alpha) {
  const adjusted = new Float64Array(t.length).fill(1);
  let left = t.map((_, place) => place);
  let largestP = 0;

  const drop = (values) => {
    let most = largestP;
    const stay = [];
    left.forEach((place, i) => {
      const p = place === leader ? 1 : Math.max(values[i], largestP);
      adjusted[place] = p;
      if (p <= alpha) most = Math.max(most, p);
      else stay.push(place);
    });
    const gone = stay.length < left.length;
    largestP = most;
    left = stay;
    return gone;
  };
  const ofPair = Array.from(t, signsBound); // once: thousands are asked for again and again
  const bound = () => {
    const pairs = (left.length * (left.length - 1)) / 2;
    return left.map((place) => Math.min(1, pairs * ofPair[place]));
  };
  const known = () => {
    if (left.length !== 2) return false;
    const other = left[0] === leader ? left[1] : left[0];
    if (!outcomes.binary[unique[leader]] || !outcomes.binary[unique[other]]) return false;
    const p = mcnemarExact(away[other].below, away[other].above);
    drop([p, p]);
    return true;
  };

  while (left.length > 1) {
    if (known()) return adjusted;
    if (!drop(bound())) break;
  }
  if (left.length < 2 || left.length > MOST_COMPARED || !left.some((place) => t[place])) return adjusted;
  while (left.length > 1 && !known()) {
    const largest = largestOfPairs(outcomes, unique, left, away);
    const limits = bound();
    const p = left.map((place, i) => {
      const least = t[place] * (1 - 1e-9);
      let reached = 0;
      for (const value of largest) if (value >= least) reached++;
      return Math.min((reached + 1) / (largest.length + 1), limits[i]);
    });
    if (!drop(p)) break;
  }
  return adjusted;
}

/** Of each draw the largest difference of two candidates in units of their spread. */
function largestOfPairs(outcomes, unique, left, away) {
  const found = new Float64Array(RESAMPLES);
  left.forEach((place, i) => {
    const a = outcomes.drawn(unique[place]);
    for (let j = i + 1; j < left.length; j++) {
      const other = left[j];
      const { squares } = outcomes.away(unique[place], unique[other]);
      if (!(squares > SAME * (away[place].squares + away[other].squares))) continue;
      const scale = 1 / Math.sqrt(squares);
      const b = outcomes.drawn(unique[other]);
      for (let k = 0; k < RESAMPLES; k++) {
        const apart = Math.abs(b[k] - a[k]) * scale;
        if (apart > found[k]) found[k] = apart;
      }
    }
  });
  return found;
}
