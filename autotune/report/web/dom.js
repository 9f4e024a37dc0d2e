// Elements, numbers and words. Every text goes in as a text node: what stands in a cell never becomes markup.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else if (name === "checked") element.checked = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** A number as short as it can be read, as the command line shows it; empty where it is missing. */
export function short(value) {
  if (value === null || value === undefined || value === "") return "";
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value)) return "";
  const size = Math.abs(value);
  if (Number.isInteger(value)) return String(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 1) return String(Number(value.toPrecision(3)));
  return size >= 0.001 ? value.toFixed(3) : String(Number(value.toPrecision(2)));
}

export function signed(value) {
  return (value > 0 ? "+" : value < 0 ? "-" : "±") + short(Math.abs(value));
}

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

export function duration(seconds) {
  if (seconds < 90) return `${short(Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

const UNITS = { ms: "ms", mb: "MB", s: "s", tps: "tokens/s", nats: "nats", mhz: "MHz" };

/** The unit that a column's name says. */
export function unitOf(name) {
  const parts = name.split("@")[0].split("_");
  return parts.map((part) => UNITS[part]).find(Boolean) ?? "";
}

export function withUnit(name, value) {
  const unit = unitOf(name);
  return value === null || value === undefined ? "not measured" : short(value) + (unit ? ` ${unit}` : "");
}

/** A value with its interval, where it has one. */
export function withInterval(name, value, interval) {
  return withUnit(name, value) + (interval ? ` [${short(interval[0])}, ${short(interval[1])}]` : "");
}

/** A name that may break where it has an underscore. */
export function breakable(text) {
  return String(text).split(/(?<=_)/).flatMap((part, i) => (i ? [h("wbr"), part] : [part]));
}

/** Columns of longer texts are not squeezed to a word a line. */
function wordy(cell) {
  return typeof cell === "string" && cell.length > 24 ? "words" : null;
}

/** A table of a few rows; cells are texts or elements. `right`: places of columns of numbers. */
export function smallTable(caption, heads, rows, right = []) {
  const kind = (i) => (right.includes(i) ? "number" : null);
  return h(
    "div",
    { class: rows.length > 14 ? "scroll tall" : "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, heads.map((head, i) => h("th", { scope: "col", class: kind(i) }, breakable(head))))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, i) => h("td", { class: kind(i) ?? wordy(cell) }, cell))))),
    ),
  );
}

export function select(label, options, chosen, change) {
  const box = h(
    "select",
    { onchange: () => change(box.value) },
    options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)),
  );
  return h("label", { class: "field" }, h("span", {}, label), box);
}

export function check(label, checked, change) {
  const box = h("input", { type: "checkbox", checked, onchange: () => change(box.checked) });
  return h("label", { class: "check" }, box, h("span", {}, label));
}

/** A section with its heading. */
export function section(id, title, ...children) {
  return h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), ...children);
}

/** Hand a text to the user as a file. */
export function download(name, type, text) {
  const link = h("a", { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
