// What a <log-viewer> does with lines of the past when a person asks: further back, a line by its address, what a note
// stands for, the container before a restart. Loaded when it is first needed.
import { copy } from "./clipboard.js";
import { linked } from "./log-row.js";
import { Stream } from "./log-ring.js";
import { BIG_PAGE, MORE } from "./log-store.js";
import { toast } from "./toast.js";

const AROUND = 200;
const PAGES = 4;

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

// A line with what was around it.
export async function around(viewer, { time }) {
  const { ring, rows, store } = viewer;
  rows.following = false;
  const [before, after] = await Promise.all([store.ask({ before: time, limit: AROUND }), store.ask({ from: time, limit: BIG_PAGE })]);
  store.add([...(before?.lines ?? []), ...(after?.lines ?? [])]);
  const last = after?.lines.at(-1)?.time;
  if (after?.more) ring.note(last, MORE, { from: last, to: null });
  await viewer.flush();
  await goToLink(viewer, true);
}

// To the line that the address ends with; it is looked for in the store unless it was `sought` there.
export async function goToLink(viewer, sought = false) {
  const wanted = linked(location.hash);
  if (!wanted) return;
  viewer.selected = wanted;
  const entry = viewer.ring.entries.find((one) => one.time === wanted.time && (!wanted.instance || one.instance === wanted.instance));
  if (entry) {
    viewer.rows.again();
    viewer.rows.to(entry);
  } else if (sought) {
    toast("That line is not kept any more", "error");
  } else {
    await around(viewer, wanted);
  }
}

export function select(viewer, entry) {
  viewer.selected = { time: entry.time, instance: entry.instance };
  history.replaceState(null, "", `#t=${entry.time}&i=${encodeURIComponent(entry.instance)}`);
  viewer.rows.again();
  copy(location.href);
}

// Loads what a note stands for.
export async function fill({ ring, store }, note) {
  ring.remove(note);
  const { from, to } = note.action;
  const { at, more } = await store.forward(from, to ?? "9", 1);
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
