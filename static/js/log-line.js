// From a raw log line to what a row shows: colours as spans, control characters gone, JSON readable, a level.
// Nothing here makes HTML: rows are built of text nodes only, so what a line holds is inert.

const CONTROL = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/;
const ERROR = /\b(error|exception|traceback|fatal|critical|panic)\b/i;
const WARNING = /\bwarn(ing)?\b/i;
const DEBUG = /\b(debug|trace)\b/i;
const LOOKED_AT = 400; // characters in which a word for the level is looked for

export const LEVELS = { debug: 0, info: 1, warn: 2, error: 3 };

// Most logs have no colours: what reads them is loaded with the first line that does.
let colours = null;

export const needsColours = (lines) => colours === null && lines.some((line) => line.text.includes("\u001b"));

export async function loadColours() {
  try {
    ({ colours } = await import("./log-ansi.js"));
  } catch {
    // Without it sequences are shown as harmless text; the next such line tries again.
  }
}

export function parse(text) {
  const { plain, spans } = CONTROL.test(text) ? read(text) : { plain: text, spans: null };
  const fields = spans === null && plain.startsWith("{") ? json(plain) : null;
  const shown = fields ? readable(fields) ?? plain : plain;
  return { shown, spans, json: fields && plain, level: level(shown, fields) };
}

function read(text) {
  const tabbed = text.replaceAll("\t", "    ");
  return colours ? colours(tabbed) : { plain: tabbed.replace(new RegExp(CONTROL, "g"), ""), spans: null };
}

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// A line of JSON as "level event name=value ...".
function readable({ time, timestamp, level: named, event, message, msg, ...others }) {
  const head = [named, event ?? message ?? msg].filter((word) => word !== undefined && word !== null && word !== "");
  if (head.length === 0) return null;
  const told = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
  const rest = Object.entries(others).map(([name, value]) => `${name}=${told(value)}`);
  return [...head.map(told), ...rest].join(" ").replaceAll("\n", "\u23ce");
}

function level(text, fields) {
  const word = typeof fields?.level === "string" ? fields.level : text.slice(0, LOOKED_AT);
  if (ERROR.test(word)) return "error";
  if (WARNING.test(word)) return "warn";
  return DEBUG.test(word) ? "debug" : "info";
}

// Puts text into an element, split where a colour or a hit begins or ends.
export function paint(element, text, spans, hits, current) {
  if (!spans && !hits?.length) {
    element.textContent = text;
    return;
  }
  const edges = new Set([0, text.length]);
  for (const [from, to] of [...(spans ?? []), ...(hits ?? [])]) edges.add(from).add(to);
  const sorted = [...edges].sort((a, b) => a - b);
  const parts = [];
  for (let at = 0; at + 1 < sorted.length; at++) {
    const [from, to] = [sorted[at], sorted[at + 1]];
    const span = spans?.find((one) => one[0] <= from && from < one[1]);
    const hit = hits?.some((one) => one[0] <= from && from < one[1]);
    const part = document.createElement(hit ? "mark" : "span");
    if (span) part.className = span[2];
    if (hit && current) part.dataset.current = "";
    part.textContent = text.slice(from, to);
    parts.push(part);
  }
  element.replaceChildren(...parts);
}
