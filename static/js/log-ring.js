// The lines that a viewer holds: in order of time, each once, at most so many.
import { parse } from "./log-line.js";

// Numbers lines of one instance and time within one stream (a socket, one answer of the store). The same line has the
// same number in each of them, so that instance, time and number tell repeats from lines that are merely alike.
export class Stream {
  #last = new Map();

  key({ instance, time }) {
    const before = this.#last.get(instance);
    const number = before?.time === time ? before.number + 1 : 0;
    this.#last.set(instance, { time, number });
    return `${instance} ${time} ${number}`;
  }
}

export class Ring {
  entries = [];
  #keys = new Set();

  constructor(most) {
    this.most = most;
  }

  get newest() {
    return this.entries.findLast((entry) => !entry.note)?.time ?? "";
  }

  get oldest() {
    return this.entries[0]?.time ?? "";
  }

  get full() {
    return this.entries.length >= this.most;
  }

  // The new entry, or null for a repeat and for what is older than all that a full ring holds.
  add(line, key) {
    if (this.#keys.has(key) || (this.full && line.time < this.oldest)) return null;
    const entry = { key, hits: null, open: false, size: 0, ...line, ...parse(String(line.text)) };
    delete entry.text;
    this.#insert(entry);
    return entry;
  }

  // A row that is no line, before the lines of its time.
  note(time, words, action = null) {
    const entry = { key: `note ${time} ${words}`, time, note: words, action, hits: null, size: 0 };
    if (this.#keys.has(entry.key)) return null;
    this.#insert(entry);
    return entry;
  }

  remove(entry) {
    const at = this.entries.indexOf(entry);
    if (at >= 0) this.entries.splice(at, 1);
    this.#keys.delete(entry.key);
  }

  // Drops the oldest beyond the limit; how many.
  trim() {
    const gone = this.entries.splice(0, Math.max(0, this.entries.length - this.most));
    for (const entry of gone) this.#keys.delete(entry.key);
    return gone.length;
  }

  #insert(entry) {
    this.#keys.add(entry.key);
    const { entries } = this;
    // Nearly always at the end.
    let at = entries.length;
    if (at && entries[at - 1].time > entry.time) {
      let low = 0;
      while (low < at) {
        const middle = (low + at) >> 1;
        if (entries[middle].time <= entry.time) low = middle + 1;
        else at = middle;
      }
    }
    if (at === entries.length) entries.push(entry);
    else entries.splice(at, 0, entry);
  }
}
