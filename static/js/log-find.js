// Finding lines in a <log-viewer>: its search box, marks and hits. Loaded when one first looks for something.
import { Search } from "./log-search.js";

export class Finder {
  #search = new Search();
  #current = null;

  constructor(viewer) {
    this.viewer = viewer;
  }

  get active() {
    return this.#search.active;
  }

  get current() {
    return this.#current;
  }

  stop() {
    this.#search.stop();
  }

  // Looks for what the box says now.
  find() {
    const { form, ring, rows } = this.viewer;
    this.#search.set(form.elements.search.value, form.elements.pattern.checked);
    this.#current = null;
    for (const entry of ring.entries) entry.hits = null;
    rows.again();
    return this.viewer.flush().then(() => rows.again());
  }

  // Marks hits in lines that were not looked at yet; false when meanwhile something else is looked for.
  async mark(entries) {
    const { generation } = this.#search;
    await this.#search.run(entries);
    return generation === this.#search.generation;
  }

  // To the next hit, or the one before; from the row at the top when there was none yet.
  step(direction) {
    const { rows } = this.viewer;
    const hits = this.#hits();
    if (!hits.length) return;
    const at = this.#current ? hits.indexOf(this.#current) : direction > 0 ? -1 : 0;
    const before = this.#current;
    this.#current = hits[(at + direction + hits.length) % hits.length];
    if (before) rows.renew(before);
    rows.renew(this.#current);
    rows.to(this.#current);
    this.tell();
  }

  tell() {
    const { count, form } = this.viewer;
    const { problem } = this.#search;
    const hits = this.#hits();
    const at = this.#current ? `${hits.indexOf(this.#current) + 1} of ` : "";
    const words = problem || (this.active ? `${at}${hits.length} ${hits.length === 1 ? "line" : "lines"}` : "");
    if (count.textContent !== words) count.textContent = words;
    count.classList.toggle("log-problem", problem !== "");
    form.elements.search.setAttribute("aria-invalid", String(problem !== ""));
  }

  #hits() {
    return this.active ? this.viewer.rows.view.filter((entry) => entry.hits) : [];
  }
}
