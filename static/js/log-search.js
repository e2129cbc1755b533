// Searching lines. A pattern that explodes (such as (a+)+$) is stopped with its worker and costs the page nothing.
import { plainHits } from "./log-match.js";

const PATIENCE_MS = 1500;

export class Search {
  #worker = null;
  #waiting = new Map();
  #id = 0;

  constructor() {
    this.text = "";
    this.pattern = false;
    this.problem = "";
    this.generation = 0;
  }

  get active() {
    return this.text !== "" && this.problem === "";
  }

  set(text, pattern) {
    this.stop();
    this.generation += 1;
    Object.assign(this, { text, pattern, problem: "" });
    if (!pattern || !text) return;
    try {
      new RegExp(text, "gi");
    } catch (error) {
      this.problem = `Not a pattern: ${error.message.split(": ").at(-1)}`;
    }
  }

  // Sets `hits` of each entry that was not looked at since the search changed; false when the pattern was given up.
  async run(entries) {
    const { generation } = this;
    const fresh = entries.filter((entry) => !entry.note && entry.searched !== generation);
    if (!this.active || !fresh.length) return this.active;
    if (!this.pattern) {
      for (const entry of fresh) this.#mark(entry, plainHits(entry.shown, this.text));
      return true;
    }
    const found = await this.#ask(fresh.map((entry) => entry.shown));
    if (generation !== this.generation) return false;
    if (found === null) {
      this.problem = "This pattern takes too long; make it simpler";
      return false;
    }
    fresh.forEach((entry, at) => this.#mark(entry, found[at]));
    return true;
  }

  stop() {
    this.#worker?.terminate();
    this.#worker = null;
    for (const done of this.#waiting.values()) done(null);
    this.#waiting.clear();
  }

  #mark(entry, hits) {
    entry.searched = this.generation;
    entry.hits = hits;
  }

  #ask(texts) {
    if (!this.#worker) {
      this.#worker = new Worker(new URL("./log-worker.js", import.meta.url), { type: "module" });
      this.#worker.addEventListener("message", ({ data }) => {
        this.#waiting.get(data.id)?.(data.found);
        this.#waiting.delete(data.id);
      });
    }
    const id = ++this.#id;
    return new Promise((done) => {
      const late = setTimeout(() => this.stop(), PATIENCE_MS);
      this.#waiting.set(id, (found) => {
        clearTimeout(late);
        done(found);
      });
      this.#worker.postMessage({ id, source: this.text, texts });
    });
  }
}
