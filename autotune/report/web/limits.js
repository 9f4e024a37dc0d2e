// Limits such as "accuracy >= base + 0.2", as autotune/analysis/limits.py reads and judges them.

const NUMBER = "[+-]?(?:[0-9]+(?:\\.[0-9]*)?|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?";
const BOUND = new RegExp(
  `^\\s*(?:(${NUMBER})|base(?:\\s*([+*-])\\s*(${NUMBER}))?|(${NUMBER})\\s*\\*\\s*base)\\s*$`,
);
const LIMIT = /^\s*([^\s<>=!~≤≥]+)\s*(<=|>=)([^]*)$/;

/** The limit that a text states, or null where it states none. */
export function parseLimit(text) {
  const found = LIMIT.exec(text);
  return found && limitOf(found[1], found[2], found[3]);
}

/** The limit `metric op bound`, the bound as a person writes it: a number, or what `base` is compared with; or null. */
export function limitOf(metric, op, bound) {
  const parts = BOUND.exec(bound);
  if (!parts) return null;
  const [, number, sign, operand, factor] = parts;
  const value = Number(number ?? operand ?? factor ?? 0);
  if (!Number.isFinite(value)) return null;
  const limit = { text: `${metric} ${op} ${bound.trim()}`, metric, op, bound: bound.trim(), constant: 0, factor: 1 };
  if (number !== undefined) return { ...limit, constant: value, factor: 0 };
  if (factor !== undefined || sign === "*") return { ...limit, factor: value };
  return sign ? { ...limit, constant: sign === "+" ? value : -value } : limit;
}

/** The number that a limit compares with; null where it needs the untouched model's and that is missing. */
export function threshold(limit, base) {
  if (limit.factor === 0) return limit.constant;
  const own = base?.values[limit.metric];
  if (own === undefined) return null;
  const value = limit.constant + limit.factor * own;
  return Number.isFinite(value) ? value : null;
}

/** How far a value is beyond a limit: broken above 0; null where it is unknown. */
export function gap(limit, value, base) {
  const bound = threshold(limit, base);
  if (bound === null || value === undefined || !Number.isFinite(value)) return null;
  const difference = limit.op === "<=" ? value - bound : bound - value;
  const own = base?.values[limit.metric];
  const product = limit.factor !== 0 && own ? limit.factor * own : 0;
  const largest = Math.max(...[value, bound, limit.constant, product].map(Math.abs));
  return Math.abs(difference) <= 1e-12 * largest ? 0 : difference;
}

/** Whether a limit holds at one end of an interval and is broken at the other. */
export function uncertain(limit, interval, base) {
  const [low, high] = interval.map((end) => gap(limit, end, base));
  return low !== null && high !== null && low > 0 !== high > 0;
}
