// What a <log-viewer> does when a person asks for more than the latest lines: further back, a line by its address, its
// fields, what a note stands for, the container before a restart. Loaded when it is first needed.
import { copy } from "./clipboard.js";
import { shownTime } from "./log-row.js";
import { Stream } from "./log-ring.js";
import { toast } from "./toast.js";

const AROUND = 200;
const BIG_PAGE = 5000;
const PAGES = 4;
const LOOKS = 10;
const LOOK_MS = 500;
const AGO_MS = 5000; // instances are heard at different times: after an outage go back a little further
const MORE = "More lines were written from here on.";

// Lines from a time on until one is later than `to` ("" for the end); where it stopped and whether more follow.
async function forward(store, from, to, pages) {
  let at = from;
  for (let page = 0; page < pages; page++) {
    const found = await store.ask({ from: at, limit: BIG_PAGE });
    if (!found) break;
    store.add(found.lines);
    const last = found.lines.at(-1)?.time ?? at;
    if (!found.more || last === at || (to && last > to)) return { at: last, more: found.more && last !== at };
    at = last;
  }
  return { at, more: true };
}

// What was written since a time while nothing was heard.
export function catchUp({ store }, since) {
  return forward(store, new Date(Date.parse(since) - AGO_MS).toISOString(), "", PAGES);
}

// `choice` is "since:SECONDS" or "last:LINES".
export async function back({ ring, rows, store }, choice) {
  const [kind, number] = choice.split(":");
  rows.following = true;
  store.complete = false;
  if (kind === "since") await store.older(BIG_PAGE, Number(number));
  for (let pages = PAGES; kind === "last" && pages > 0 && ring.entries.length < Number(number) && !store.complete; pages--) {
    await store.older(Math.min(BIG_PAGE, Number(number)));
  }
}

// The line that an address ends with, or null. Without an instance it is the first line from that time on; `words` are
// looked for.
function linked(hash) {
  const found = new URLSearchParams(hash.slice(1));
  const [time, instance, words] = ["t", "i", "q"].map((name) => found.get(name) ?? "");
  return time ? { time, instance, words } : null;
}

// To the line that the address ends with, before any other was loaded.
export function arrive(viewer) {
  return around(viewer, (viewer.selected = linked(location.hash)));
}

// A line with what was around it.
async function around(viewer, { time }) {
  const { ring, rows, store } = viewer;
  rows.following = false;
  const [before, after] = await Promise.all([store.ask({ before: time, limit: AROUND }), store.ask({ from: time, limit: BIG_PAGE })]);
  store.add([...(before?.lines ?? []), ...(after?.lines ?? [])]);
  const last = after?.lines.at(-1)?.time;
  if (after?.more) ring.note(last, MORE, { from: last, to: null });
  if (viewer.selected?.words) {
    viewer.form.elements.search.value = viewer.selected.words;
    await viewer.find("find");
  }
  await viewer.flush();
  await goToLink(viewer, 1);
}

// To the line that the address ends with. It is looked for in the store first; then, since the store may be a little
// behind what is live, for a while among what comes. `sought` counts the looks.
export async function goToLink(viewer, sought = 0) {
  const wanted = linked(location.hash);
  if (!wanted) return;
  viewer.selected = wanted;
  const is = (one) => (wanted.instance ? one.time === wanted.time && one.instance === wanted.instance : one.time >= wanted.time && one.note === undefined);
  const entry = viewer.ring.entries.find(is);
  if (entry) {
    viewer.selected = entry;
    viewer.rows.again();
    viewer.rows.to(entry);
  } else if (sought && sought < LOOKS) {
    setTimeout(() => viewer.isConnected && viewer.past("goToLink", sought + 1), LOOK_MS);
  } else if (sought) {
    toast("That line is not kept any more", "error");
  } else {
    await around(viewer, wanted);
  }
}

export function select(viewer, entry) {
  viewer.selected = entry;
  history.replaceState(null, "", `#t=${entry.time}&i=${encodeURIComponent(entry.instance)}`);
  viewer.rows.again();
  copy(location.href);
}

// Shows the fields of a line of JSON below it, or hides them.
export async function unfold({ rows }, entry) {
  await rows.vary();
  entry.detail ??= JSON.stringify(JSON.parse(entry.json), null, 2);
  entry.open = !entry.open;
  rows.renew(entry);
}

// Loads what a note stands for.
export async function fill({ ring, store }, note) {
  ring.remove(note);
  const { from, to } = note.action;
  const { at, more } = await forward(store, from, to ?? "9", 1);
  if (more && (!to || at < to)) ring.note(at, MORE, { from: at, to });
}

// The lines of the container before the restart; false when they could not be read.
export async function previous(viewer, one) {
  const { ring, rows, store } = viewer;
  const found = await store.ask({ instance: one.id }, viewer.dataset.previous);
  if (!found) return false;
  if (!found.lines.length) {
    toast("The cluster keeps no log of the container before", "error");
    return true;
  }
  const stream = new Stream();
  const keys = found.lines.map((line) => [line, stream.key(line)]);
  for (const [line, key] of keys) ring.add(line, key);
  const last = found.lines.at(-1);
  ring.note(`${last.time}~`, `Container of ${one.name} ended here and was started again.`);
  await viewer.flush();
  const entry = ring.entries.findLast((row) => row.time === last.time && row.instance === one.name);
  if (entry) rows.to(entry);
  return true;
}

// How one likes to read is kept between visits; what one looks for is not.
export function keep({ form }) {
  const { times, wrap } = form.elements;
  localStorage.setItem("log", JSON.stringify({ times: times.value, wrap: wrap.checked }));
}

// A key that means something here.
export function press(viewer, key) {
  const { search, wrap } = viewer.form.elements;
  const step = (direction) => viewer.find("step", direction);
  const acts = { "/": () => search.focus(), n: () => step(1), N: () => step(-1), w: () => wrap.click(), G: () => viewer.toEnd() };
  return acts[key]();
}

// Times that say how long ago go on.
export function tick({ rows }) {
  if (document.hidden) return;
  for (const { entry, firstChild } of rows.rows.children) {
    if (!entry.note) firstChild.textContent = shownTime(entry.time, "relative");
  }
}
