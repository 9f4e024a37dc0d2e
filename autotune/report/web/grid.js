// The full table: only the rows in view are in the page, so that ten thousand rows scroll and filter at once.
import { check, download, h, plural, short } from "./dom.js";

const ROW = 30; // pixels
const SPARE = 12; // rows beside those in view

/** Return what a filter asks of a cell, or null for an empty filter. Raises where it cannot be read. */
export function predicate(type, text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return null;
  if (wanted === "empty") return (cell) => cell === null;
  if (wanted === "!empty") return (cell) => cell !== null;
  if (type === "number") {
    const range = /^(\S+?)\s*\.\.\s*(\S+)$/.exec(wanted);
    if (range) {
      const [low, high] = [Number(range[1]), Number(range[2])];
      if (Number.isNaN(low) || Number.isNaN(high)) throw new Error("a range is two numbers, such as 0.5..0.9");
      return (cell) => cell !== null && cell >= low && cell <= high;
    }
    const parts = /^(<=|>=|<|>|!=|=)?\s*(\S+)$/.exec(wanted);
    const number = parts ? Number(parts[2]) : NaN;
    if (Number.isNaN(number)) throw new Error("a number, such as >= 0.9, < 100, = 8, 0.5..0.9, empty or !empty");
    const holds = {
      "<=": (x) => x <= number,
      ">=": (x) => x >= number,
      "<": (x) => x < number,
      ">": (x) => x > number,
      "!=": (x) => x !== number,
    }[parts[1]] ?? ((x) => x === number || short(x) === parts[2]);
    return (cell) => cell !== null && holds(cell);
  }
  if (wanted.startsWith("!")) return (cell) => !String(cell ?? "").toLowerCase().includes(wanted.slice(1));
  if (wanted.startsWith("=")) return (cell) => String(cell ?? "").toLowerCase() === wanted.slice(1).trim();
  return (cell) => cell !== null && String(cell).toLowerCase().includes(wanted);
}

/** Whether each row holds: of a column with few different values each value is asked once. */
function rowsWhere(column, holds, count) {
  if (column.words) {
    const kept = column.words.map(holds);
    return (i) => kept[column.of[i]];
  }
  if (!column.varies) return holds(column.at(0)) ? () => true : () => false;
  return count ? (i) => holds(column.at(i)) : () => true;
}

/** The rows that keep all filters, in order. `filters`: of a column's name its text. Raises as `predicate`. */
export function filtered(sweep, filters, search, sort) {
  const tests = [];
  for (const [name, text] of Object.entries(filters)) {
    const column = sweep.byName.get(name);
    const holds = column && predicate(column.type, text);
    if (holds) tests.push(rowsWhere(column, holds, sweep.rows));
  }
  const holds = search && predicate("text", search.replace(/^[!=]/, ""));
  if (holds) {
    const texts = sweep.columns.filter((column) => column.type === "text").map((column) => rowsWhere(column, holds, sweep.rows));
    tests.push((i) => texts.some((test) => test(i)));
  }
  const rows = [];
  for (let i = 0; i < sweep.rows; i++) if (tests.every((test) => test(i))) rows.push(i);
  const column = sort && sweep.byName.get(sort.name);
  if (column) {
    const sign = sort.down ? -1 : 1;
    rows.sort((a, b) => {
      const [x, y] = [column.at(a), column.at(b)];
      if (x === null || y === null) return (x === null) - (y === null) || a - b; // what is missing comes last
      return (x < y ? -sign : x > y ? sign : 0) || a - b;
    });
  }
  return rows;
}

/** One cell of a CSV file; a spreadsheet must not take a text for a formula. */
function csvCell(value) {
  if (value === null) return "";
  let text = String(value);
  if (typeof value === "string" && /^['\s\ufeff\u007f]*[=+\-@＝＋－＠]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function csv(sweep, names, rows) {
  const columns = names.map((name) => sweep.byName.get(name));
  return [names, ...rows.map((i) => columns.map((column) => column.at(i)))].map((cells) => cells.map(csvCell).join(",")).join("\n") + "\n";
}

/** The table with its controls. `open` is called with a row that the user asks for; `mark` says a row's class. */
export function grid(sweep, shown, { open, mark }) {
  const state = { names: [...shown], filters: {}, search: "", sort: null, rows: [], at: 0 };
  const count = h("p", { class: "count", role: "status" });
  const body = h("tbody");
  const head = h("thead");
  const table = h("table", { class: "grid-table" }, h("caption", { class: "hidden" }, "All candidates"), head, body);
  const scroller = h("div", { class: "grid-scroll", tabindex: "0", role: "region", "aria-label": "All candidates: up and down go from one to the next" }, table);

  const space = () => h("tr", { class: "space", "aria-hidden": "true" }, h("td"));
  const [above, below] = [space(), space()];
  const size = (row, rows) => {
    row.hidden = rows <= 0;
    row.firstChild.setAttribute("colspan", state.names.length);
    row.firstChild.style.height = `${Math.max(0, rows) * ROW}px`;
  };
  const line = (at) => {
    const row = state.rows[at];
    return h(
      "tr",
      { "aria-rowindex": at + 2, class: mark(row) },
      state.names.map((name) => {
        const column = sweep.byName.get(name);
        const value = column.at(row);
        const text = column.type === "number" ? short(value) : value === null ? "" : String(value);
        if (name === "candidate") return h("td", {}, h("button", { class: "link", tabindex: at === state.at ? 0 : -1, onclick: () => open(row) }, text.slice(0, 8)));
        return h("td", { class: column.type === "number" ? "number" : null, title: text.length > 24 ? text : null }, text);
      }),
    );
  };
  // The rows in the page are those from `drawn.first` on. A row in view stays the same element, so that it keeps the focus.
  const drawn = { first: 0, lines: [] };
  const draw = (anew = false) => {
    const first = Math.min(state.rows.length, Math.max(0, Math.floor(scroller.scrollTop / ROW) - SPARE));
    const last = Math.min(state.rows.length, Math.ceil((scroller.scrollTop + (scroller.clientHeight || 600)) / ROW) + SPARE);
    size(above, first);
    size(below, state.rows.length - last);
    const ended = drawn.first + drawn.lines.length;
    if (anew || last <= drawn.first || first >= ended) {
      drawn.lines = Array.from({ length: Math.max(0, last - first) }, (_, i) => line(first + i));
      body.replaceChildren(above, ...drawn.lines, below);
    } else {
      const gone = [...drawn.lines.splice(0, Math.max(0, first - drawn.first)), ...drawn.lines.splice(Math.max(0, last - Math.max(first, drawn.first)))];
      for (const each of gone) each.remove();
      const before = Array.from({ length: Math.max(0, drawn.first - first) }, (_, i) => line(first + i));
      const behind = Array.from({ length: Math.max(0, last - ended) }, (_, i) => line(ended + i));
      above.after(...before);
      below.before(...behind);
      drawn.lines = [...before, ...drawn.lines, ...behind];
    }
    drawn.first = first;
    // One candidate is a stop of the Tab key, whatever the number of rows: the one gone to last, or the first in view.
    if (state.at < first || state.at >= last) mayStop(Math.min(Math.ceil(scroller.scrollTop / ROW), Math.max(0, last - 1)));
  };
  const button = (at) => drawn.lines[at - drawn.first]?.querySelector("button.link");
  const mayStop = (at) => {
    button(state.at)?.setAttribute("tabindex", -1);
    state.at = at;
    button(at)?.setAttribute("tabindex", 0);
  };
  scroller.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(scroller.clientHeight / ROW) - 3);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (!by || !event.target.matches("button.link")) return;
    event.preventDefault();
    const to = Math.min(state.rows.length - 1, Math.max(0, state.at + by));
    const room = scroller.clientHeight - head.offsetHeight - ROW;
    scroller.scrollTop = Math.min(to * ROW, Math.max(scroller.scrollTop, to * ROW - room));
    draw();
    mayStop(to);
    button(to)?.focus();
  });
  const refresh = () => {
    let wrong = "";
    try {
      state.rows = filtered(sweep, state.filters, state.search, state.sort);
    } catch (error) {
      wrong = `The filter cannot be read: write ${error.message}. `;
    }
    count.textContent = wrong + `${state.rows.length} of ${plural(sweep.rows, "row")}`;
    table.setAttribute("aria-rowcount", state.rows.length + 1);
    scroller.scrollTop = state.at = 0;
    draw(true);
  };
  const heads = () => {
    const titles = state.names.map((name) => {
      const column = sweep.byName.get(name);
      const sorted = state.sort?.name === name ? (state.sort.down ? "descending" : "ascending") : "none";
      const arrow = { descending: " ▼", ascending: " ▲", none: "" }[sorted];
      const turn = () => {
        const up = state.sort?.name === name;
        state.sort = !up ? { name, down: column.type === "number" } : { name, down: !state.sort.down };
        heads();
        refresh();
        head.querySelector(`[data-sort="${CSS.escape(name)}"]`).focus();
      };
      const cell = h("th", { scope: "col", "aria-sort": sorted, title: column.meaning });
      cell.append(h("button", { class: "sort", "data-sort": name, onclick: turn }, name + arrow));
      return cell;
    });
    const filters = state.names.map((name) => {
      const column = sweep.byName.get(name);
      const hint = column.type === "number" ? "≥, <, a..b" : "contains";
      const box = h("input", {
        type: "search",
        value: state.filters[name] ?? "",
        placeholder: hint,
        "aria-label": `Filter ${name}`,
        oninput: () => {
          state.filters[name] = box.value;
          refresh();
        },
      });
      return h("td", {}, box);
    });
    head.replaceChildren(h("tr", { "aria-rowindex": 1 }, titles), h("tr", { class: "filters" }, filters));
  };
  const choose = h("details", { class: "chooser" });
  const listColumns = () => {
    const boxes = sweep.columns.map((column) => {
      const box = check(column.name, state.names.includes(column.name), (on) => {
        const kept = new Set(on ? [...state.names, column.name] : state.names.filter((name) => name !== column.name));
        if (!kept.size) kept.add("candidate");
        state.names = sweep.columns.map(({ name }) => name).filter((name) => kept.has(name));
        if (!on) delete state.filters[column.name];
        summary.textContent = `Columns (${state.names.length} of ${sweep.columns.length})`;
        heads();
        refresh();
      });
      box.title = column.meaning;
      return box;
    });
    const summary = h("summary", {}, `Columns (${state.names.length} of ${sweep.columns.length})`);
    choose.replaceChildren(summary, h("div", { class: "boxes" }, boxes));
  };
  const search = h("input", { type: "search", oninput: () => { state.search = search.value; refresh(); } });
  const save = () => download(`${sweep.folder}.csv`, "text/csv", csv(sweep, state.names, state.rows));
  listColumns();
  heads();
  scroller.addEventListener("scroll", () => requestAnimationFrame(() => draw()));
  new ResizeObserver(() => draw()).observe(scroller);
  const controls = h(
    "div",
    { class: "controls" },
    h("label", { class: "field" }, h("span", {}, "Search in all texts"), search),
    h("button", { onclick: save }, "Download what is shown (CSV)"),
    choose,
  );
  refresh();
  return h("div", { class: "grid" }, controls, count, scroller);
}
