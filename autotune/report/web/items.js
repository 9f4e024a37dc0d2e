// Two candidates beside each other, item by item.
import { h, plural, select, short, signed, smallTable } from "./dom.js";
import { headToHead, nameOf } from "./summary.js";
import { Z_95 } from "./statistics.js";

const MOST = 100; // items listed
const MOST_LABELS = 24; // labels of a confusion matrix

function label(sweep, value) {
  if (value === null || value === undefined) return "";
  return typeof value === "number" ? (sweep.items.labels[value] ?? `label ${value}`) : value;
}

/** The outcome of each item of an entry, by its row of outcomes. */
function outcomesOf(sweep, metric, entry) {
  const kept = sweep.outcomes[metric];
  const place = entry.outcomes[metric];
  if (!kept || place === undefined) return null;
  const row = kept.rows[place];
  if (kept.items === null) return Array.from(row);
  const octets = new Uint8Array(row.buffer);
  return Array.from({ length: kept.items }, (_, i) => (octets[i >> 3] >> (7 - (i & 7))) & 1);
}

function confusion(sweep, answers, title) {
  if (!answers?.gold || ![...answers.predicted, ...answers.gold].every((x) => typeof x === "number")) return null;
  const count = Math.max(...answers.gold, ...answers.predicted) + 1;
  if (count > MOST_LABELS) return null;
  const cells = Array.from({ length: count }, () => new Array(count).fill(0));
  answers.gold.forEach((gold, i) => cells[gold][answers.predicted[i]]++);
  const most = Math.max(...cells.flat());
  const heads = Array.from({ length: count }, (_, i) => h("th", { scope: "col" }, label(sweep, i)));
  return h(
    "div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
    h("table", { class: "confusion" },
      h("caption", {}, title),
      h("thead", {}, h("tr", {}, h("td", {}, "right ↓ answered →"), heads)),
      h("tbody", {}, cells.map((row, i) => h("tr", {}, h("th", { scope: "row" }, label(sweep, i)),
        row.map((value, j) => h("td", { class: `number heat-${Math.round((value / most) * 4)}${i === j ? " right" : ""}` }, String(value)))))),
    ),
  );
}

/** The section's content; `found()` is the choice now. */
export function itemsView(sweep, found) {
  const scored = Object.keys(sweep.outcomes);
  const place = h("div");
  const state = { a: null, b: null };
  const withOutcomes = [...sweep.entryOf.values()].filter((entry) => scored.some((metric) => metric in entry.outcomes));
  if (sweep.base && !withOutcomes.includes(sweep.base) && scored.some((metric) => metric in sweep.base.outcomes)) withOutcomes.push(sweep.base);
  const options = (chosen) => {
    const detailed = withOutcomes.filter((entry) => sweep.answers[entry.id] || entry.id === chosen);
    const listed = new Set(detailed);
    const rest = withOutcomes.filter((entry) => !listed.has(entry)).slice(0, 200);
    return [...detailed, ...rest].map((entry) => [entry.id, `${entry.id.slice(0, 8)} ${nameOf(sweep, entry)}`]);
  };
  const draw = () => {
    const choice = found();
    const base = sweep.base?.id ?? null;
    const a = state.a ?? choice.winner ?? withOutcomes.find((entry) => entry.id !== base)?.id;
    const b = state.b ?? (base !== a && base ? base : choice.leader);
    const [first, second] = [a, b].map((id) => (id === base ? sweep.base : sweep.entryOf.get(id)) ?? null);
    const controls = h("div", { class: "controls" },
      select("Candidate", options(a), a, (id) => { state.a = id; draw(); }),
      select("beside", options(b), b, (id) => { state.b = id; draw(); }));
    const metric = scored.find((name) => first && second && name in first.outcomes && name in second.outcomes);
    if (!metric) {
      place.replaceChildren(controls, h("p", {}, "These two have no outcomes of the same items to compare."));
      return;
    }
    const pair = headToHead(sweep, first, second, metric);
    if (!pair) {
      place.replaceChildren(controls, h("p", {}, "These two were scored on different items."));
      return;
    }
    const [own, other] = [outcomesOf(sweep, metric, first), outcomesOf(sweep, metric, second)];
    const answers = [sweep.answers[a], sweep.answers[b]];
    const both = own.filter((x, i) => x === 1 && other[i] === 1).length;
    const words = pair.binary
      ? `${both} of ${pair.n} items both get right, ${pair.above} only ${a.slice(0, 8)}, ${pair.below} only ${b.slice(0, 8)}, ${pair.n - both - pair.above - pair.below} neither. `
      : `${a.slice(0, 8)} scores higher on ${pair.above} of ${pair.n} items, ${b.slice(0, 8)} on ${pair.below}. `;
    const range = `${metric} differs by ${signed(pair.mean)} [${short(pair.mean - Z_95 * pair.error)}, ${short(pair.mean + Z_95 * pair.error)}] (95 %, same items)${pair.p === null ? "" : `; p of no difference, McNemar's exact test: ${pair.p < 0.001 ? "below 0.001" : short(pair.p)}`}.`;
    const differ = own.map((x, i) => ({ i, by: x - other[i] })).filter(({ by }) => by !== 0);
    differ.sort((x, y) => Math.abs(y.by) - Math.abs(x.by) || x.i - y.i);
    const gold = answers[0]?.gold ?? answers[1]?.gold;
    const list = differ.slice(0, MOST).map(({ i, by }) => [
      by > 0 ? a.slice(0, 8) : b.slice(0, 8),
      sweep.items.prompts[i] ?? `item ${sweep.items.ids[i] ?? i + 1}`,
      gold ? label(sweep, gold[i]) : "",
      answers[0] ? label(sweep, answers[0].predicted[i]) : "not in this page",
      answers[1] ? label(sweep, answers[1].predicted[i]) : "not in this page",
    ]);
    place.replaceChildren(
      controls,
      h("p", {}, words, range),
      h("div", { class: "pair" },
        confusion(sweep, answers[0], `What ${a.slice(0, 8)} answered (items)`) ?? "",
        confusion(sweep, answers[1], `What ${b.slice(0, 8)} answered (items)`) ?? ""),
      list.length
        ? smallTable(
            `Items that only one of them gets right${differ.length > MOST ? `: the first ${MOST} of ${differ.length}` : ` (${differ.length})`}`,
            ["better", "item", "right answer", a.slice(0, 8), b.slice(0, 8)], list)
        : h("p", {}, "They agree on every item."),
      sweep.items.prompts.some(Boolean) ? "" : h("p", { class: "note" }, "This folder does not hold the texts of its items: they are shown by their digests, in the order of outcomes/items.validation.json."),
    );
  };
  if (!withOutcomes.length) return { place: h("p", {}, "No outcomes of single items are kept in this folder."), draw: () => {} };
  return { place, draw };
}
