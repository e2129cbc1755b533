// The element of one row, and the parts that rows share: colours and short names of instances, times.
import { paint } from "./log-line.js";
import { duration } from "./times.js";

const COLOURS = 12;
const SHORT = 5;
const pad = (number, width = 2) => String(number).padStart(width, "0");

export const shortName = (instance) => instance.slice(-SHORT);

// A colour by the instance's name, so that it is the same on every visit; the next free one when it is taken.
export class Sources {
  #known = new Map();

  of(instance) {
    const known = this.#known.get(instance);
    if (known) return known;
    let hash = 0;
    for (const letter of instance) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
    const taken = new Set([...this.#known.values()].map((one) => one.colour));
    let colour = hash % COLOURS;
    for (let tries = 0; tries < COLOURS && taken.has(colour); tries++) colour = (colour + 1) % COLOURS;
    const made = { colour, short: shortName(instance), link: `&i=${encodeURIComponent(instance)}` };
    this.#known.set(instance, made);
    return made;
  }
}

export function shownTime(time, mode) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return "".padEnd(12);
  if (mode === "relative") return `${duration((Date.now() - at) / 1000)} ago`.padStart(12);
  if (mode === "utc") return `${time.slice(11, 23)}Z`;
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}

export const TIME_WIDTH = { local: 12, utc: 13, relative: 12 };

export function noteRow(entry) {
  const row = document.createElement("div");
  row.className = "log-row log-note";
  row.append(`— ${entry.note} `);
  if (entry.action) row.append(button("log-link", "Load them"));
  row.entry = entry;
  return row;
}

function button(name, words) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = name;
  made.textContent = words;
  return made;
}

const blank = document.createElement("div");
blank.append(document.createElement("a"), " ", document.createElement("span"), "   ", document.createElement("span"));
blank.children[0].className = "log-time";
blank.children[0].append(" ");
blank.children[1].append(" ");
blank.children[2].className = "log-text";

// A row for an entry: `used`, which went out of sight, filled anew, or a new one.
export function lineRow(entry, used, { sources, mode, selected, current }) {
  const row = used ?? blank.cloneNode(true);
  const [time, source] = row.children;
  const text = row.querySelector(".log-text");
  const { colour, short, link } = sources.of(entry.instance);
  row.entry = entry;
  row.className = `log-row log-level-${entry.level}${selected ? " log-selected" : ""}`;
  time.href = `#t=${entry.time}${link}`;
  time.firstChild.data = shownTime(entry.time, mode);
  time.title = `${entry.time}: link to this line`;
  if (row.of !== entry.instance) {
    row.of = entry.instance;
    source.title = `${entry.instance}, revision ${entry.revision}`;
    source.className = `log-source log-colour-${colour}`;
    source.firstChild.data = short;
  }
  if (entry.spans || entry.hits || text.firstElementChild) paint(text, entry.shown, entry.spans, entry.hits, current);
  else if (text.firstChild) text.firstChild.data = entry.shown;
  else text.textContent = entry.shown;
  if (entry.json || row.folds) fold(row, entry, source.nextSibling, text);
  return row;
}

// The button that shows the fields of a line of JSON, and below it the fields when it is open.
function fold(row, entry, gap, text) {
  row.querySelector(".log-fold")?.remove();
  row.querySelector(".log-detail")?.remove();
  row.folds = Boolean(entry.json);
  gap.data = entry.json ? " " : "   ";
  if (!entry.json) return;
  const made = button("log-fold", entry.open ? "▾ " : "▸ ");
  made.setAttribute("aria-expanded", String(entry.open));
  made.setAttribute("aria-label", "Fields of this line");
  text.before(made);
  if (!entry.open) return;
  const detail = document.createElement("div");
  detail.className = "log-detail";
  detail.textContent = entry.detail;
  row.append(detail);
}
