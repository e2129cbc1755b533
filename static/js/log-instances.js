// The instances above a log: which there are, in their colours; each can be hidden, or its container before a restart
// be looked at.
import { shortName } from "./log-row.js";
import { watch } from "./live.js";

const AGAIN_MS = 1000;
const MOST_GONE = 6;

export class Instances {
  hidden = new Set();

  constructor(box, { url, topic, sources, changed, previous }) {
    Object.assign(this, { box, url, sources, changed, previous, told: [], names: new Set(), read: new Map() });
    this.end = watch(topic, (message) => message.changed && this.soon());
    this.load();
  }

  close() {
    this.end();
    clearTimeout(this.timer);
  }

  soon() {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.load();
    }, AGAIN_MS);
  }

  async load() {
    try {
      const answer = await fetch(this.url, { headers: { Accept: "application/json" } });
      if (!answer.ok) return;
      this.told = (await answer.json()).instances;
      this.names = new Set(this.told.map((one) => one.name));
    } catch {
      return; // the next hint, or the socket that comes back, asks again
    }
    this.show();
  }

  // A line of an instance that was not told of yet.
  seen(instance) {
    if (!this.names.has(instance)) this.soon();
  }

  show() {
    const gone = this.told.filter((one) => one.gone).slice(0, MOST_GONE);
    const parts = [...this.told.filter((one) => !one.gone), ...gone].flatMap((one) => this.#parts(one));
    const focused = this.box.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.box.replaceChildren(...parts);
    if (focused) this.box.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  #parts(one) {
    const chip = document.createElement("button");
    const dot = document.createElement("span");
    chip.type = "button";
    chip.className = "log-chip";
    chip.dataset.key = one.name;
    chip.title = `${one.name}: ${one.state}${one.restarts ? `, ${one.restarts} restarts` : ""}. Press to show or hide.`;
    chip.setAttribute("aria-pressed", String(!this.hidden.has(one.name)));
    dot.className = `log-dot log-colour-${this.sources.of(one.name).colour}`;
    dot.setAttribute("aria-hidden", "true");
    chip.append(dot, shortName(one.name), this.#small(`r${one.revision} ${one.state.toLowerCase()}`));
    chip.addEventListener("click", () => {
      if (!this.hidden.delete(one.name)) this.hidden.add(one.name);
      this.show();
      this.changed();
    });
    if (!one.restarts || one.gone || this.read.get(one.id) === one.restarts) return [chip];
    const before = document.createElement("button");
    before.type = "button";
    before.className = "log-chip log-chip-before";
    before.dataset.key = `${one.name} previous`;
    before.append(`Previous container of ${shortName(one.name)}`);
    before.addEventListener("click", async () => {
      before.disabled = true;
      if (await this.previous(one)) this.read.set(one.id, one.restarts);
      this.show();
    });
    return [chip, before];
  }

  #small(words) {
    const small = document.createElement("span");
    small.className = "log-chip-state";
    small.textContent = words;
    return small;
  }
}
