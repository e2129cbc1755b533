// The element of one row, and the parts that rows share: colours and short names of instances, times.
import { paint, pretty } from "./log-line.js";
import { duration } from "./times.js";

const COLOURS = 12;
const SHORT = 5;
const pad = (number, width = 2) => String(number).padStart(width, "0");

// A colour by the instance's name, so that it is the same on every visit; the next free one when it is taken.
export class Sources {
  #colours = new Map();

  colour(instance) {
    if (!this.#colours.has(instance)) {
      let hash = 0;
      for (const letter of instance) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
      const taken = new Set(this.#colours.values());
      let colour = hash % COLOURS;
      for (let tries = 0; tries < COLOURS && taken.has(colour); tries++) colour = (colour + 1) % COLOURS;
      this.#colours.set(instance, colour);
    }
    return this.#colours.get(instance);
  }
}

export const shortName = (instance) => instance.slice(-SHORT);

export function shownTime(time, mode) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return "".padEnd(12);
  if (mode === "relative") return `${duration((Date.now() - at) / 1000)} ago`.padStart(12);
  if (mode === "utc") {
    return `${pad(at.getUTCHours())}:${pad(at.getUTCMinutes())}:${pad(at.getUTCSeconds())}.${pad(at.getUTCMilliseconds(), 3)}Z`;
  }
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}

export const TIME_WIDTH = { local: 12, utc: 13, relative: 12 };

export function linkTo({ instance, time }) {
  return `#t=${time}&i=${encodeURIComponent(instance)}`;
}

// The line that an address ends with, or null.
export function linked(hash) {
  const found = new URLSearchParams(hash.slice(1));
  return found.get("t") ? { time: found.get("t"), instance: found.get("i") ?? "" } : null;
}

export function noteRow(entry, act) {
  const row = document.createElement("div");
  row.className = "log-row log-note";
  row.append(`— ${entry.note} `);
  if (entry.action) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "log-link";
    button.textContent = "Load them";
    button.addEventListener("click", () => act(entry));
    row.append(button);
  }
  return row;
}

export function lineRow(entry, { sources, mode, selected, current, fold, select }) {
  const row = document.createElement("div");
  const time = document.createElement("a");
  const source = document.createElement("span");
  const text = document.createElement("span");
  row.className = `log-row log-level-${entry.level}`;
  row.classList.toggle("log-selected", selected);
  time.className = "log-time";
  time.href = linkTo(entry);
  time.title = `${entry.time}: link to this line`;
  time.textContent = shownTime(entry.time, mode);
  time.addEventListener("click", (event) => {
    event.preventDefault();
    select(entry);
  });
  source.textContent = shortName(entry.instance);
  source.title = `${entry.instance}, revision ${entry.revision}`;
  source.className = `log-source log-colour-${sources.colour(entry.instance)}`;
  text.className = "log-text";
  paint(text, entry.shown, entry.spans, entry.hits, current);
  row.append(time, " ", source, " ");
  if (entry.fields) row.append(foldButton(entry, fold));
  else row.append("  ");
  row.append(text);
  if (entry.open) {
    const detail = document.createElement("div");
    detail.className = "log-detail";
    detail.textContent = entry.detail;
    row.append(detail);
  }
  return row;
}

function foldButton(entry, fold) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "log-fold";
  button.textContent = entry.open ? "▾ " : "▸ ";
  button.setAttribute("aria-expanded", String(entry.open));
  button.setAttribute("aria-label", "Fields of this line");
  button.addEventListener("click", () => {
    entry.detail ??= pretty(entry.fields);
    entry.open = !entry.open;
    fold(entry);
  });
  return button;
}
