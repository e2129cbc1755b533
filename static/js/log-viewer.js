// <log-viewer data-topic data-version data-history data-instances data-previous>: the log of all instances of a version
// as one, live and from the store, in order of time. The protocol of live lines is in monitoring/consumers.py.
import { Instances } from "./log-instances.js";
import { LEVELS, loadColours, needsColours } from "./log-line.js";
import { Ring, Stream } from "./log-ring.js";
import { TIME_WIDTH, Sources, lineRow, noteRow } from "./log-row.js";
import { Rows } from "./log-rows.js";
import { Store } from "./log-store.js";
import { watch } from "./live.js";

const MOST_LINES = 20000;
const ROOM = 2000; // beyond it, for lines that come while nothing is shown
const PAGE = 500;
const TYPED_MS = 200;
const NEAR_TOP_PX = 200;
const PREFIX = 9; // the short name, the fold and the spaces between

class LogViewer extends HTMLElement {
  connectedCallback() {
    const part = (name) => this.querySelector(`[data-${name}]`);
    this.ring = new Ring(MOST_LINES);
    this.sources = new Sources();
    this.stream = new Stream();
    this.fresh = 0;
    this.held = null; // live lines that wait until what was missed, or what reads them, is there
    this.finder = null;
    this.selected = null;
    this.state = part("state");
    this.jump = part("jump");
    this.count = part("count");
    this.empty = part("empty");
    this.form = part("controls");
    this.rows = new Rows(part("lines"), {
      build: (entry, used) => this.build(entry, used),
      prefix: () => TIME_WIDTH[this.form.elements.times.value] + PREFIX,
      scrolled: () => this.scrolled(),
    });
    this.store = new Store(this.dataset.history, this.ring, this.rows);
    this.instances = new Instances(part("sources"), {
      url: this.dataset.instances,
      topic: this.dataset.version,
      sources: this.sources,
      changed: () => this.flush(),
      previous: (one) => this.past("previous", one),
    });
    this.controls();
    this.begin();
  }

  disconnectedCallback() {
    this.end?.();
    this.instances.close();
    this.rows.close();
    this.finder?.stop();
    clearInterval(this.clock);
    clearTimeout(this.typed);
    removeEventListener("hashchange", this.moved);
    document.removeEventListener("keydown", this.keys);
  }

  controls() {
    const { elements } = this.form;
    this.remember();
    this.rows.setWrap(elements.wrap.checked);
    this.showTimes();
    this.form.addEventListener("submit", (event) => event.preventDefault());
    elements.search.addEventListener("input", () => {
      clearTimeout(this.typed);
      this.typed = setTimeout(() => this.find("find"), TYPED_MS);
    });
    elements.search.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.find("step", event.shiftKey ? -1 : 1);
    });
    elements.pattern.addEventListener("change", () => this.find("find"));
    for (const name of ["filter", "level"]) elements[name].addEventListener("change", () => this.flush());
    elements.wrap.addEventListener("change", () => this.rows.setWrap(elements.wrap.checked));
    elements.times.addEventListener("change", () => this.showTimes());
    elements.history.addEventListener("change", () => this.past("back", elements.history.value));
    this.form.addEventListener("change", () => this.past("keep"));
    this.querySelector("[data-previous-hit]").addEventListener("click", () => this.find("step", -1));
    this.querySelector("[data-next-hit]").addEventListener("click", () => this.find("step", 1));
    this.jump.addEventListener("click", () => this.toEnd());
    this.rows.rows.addEventListener("click", (event) => this.clicked(event));
    this.moved = () => this.past("goToLink");
    addEventListener("hashchange", this.moved);
    this.keys = (event) => this.pressed(event);
    document.addEventListener("keydown", this.keys);
  }

  showTimes() {
    this.rows.again();
    clearInterval(this.clock);
    if (this.form.elements.times.value === "relative") this.clock = setInterval(() => this.past("tick"), 1000);
  }

  remember() {
    const { times, wrap } = this.form.elements;
    wrap.checked = matchMedia("(width < 40rem)").matches;
    try {
      const kept = JSON.parse(localStorage.getItem("log") ?? "{}");
      if (kept.times in TIME_WIDTH) times.value = kept.times;
      if (typeof kept.wrap === "boolean") wrap.checked = kept.wrap;
    } catch {
      localStorage.removeItem("log");
    }
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea, dialog")) return;
    if (!["/", "n", "N", "w", "G"].includes(event.key)) return;
    event.preventDefault();
    this.past("press", event.key);
  }

  clicked(event) {
    const { entry } = event.target.closest(".log-row") ?? {};
    if (!entry) return;
    if (event.target.closest(".log-time")) {
      event.preventDefault();
      this.past("select", entry);
    } else if (event.target.closest(".log-fold")) {
      this.past("unfold", entry);
    } else if (event.target.closest(".log-link")) {
      this.past("fill", entry);
    }
  }

  // What few visits need is loaded when it is asked for.
  async find(act, ...values) {
    const { Finder } = await import("./log-find.js");
    this.finder ??= new Finder(this);
    return this.finder[act](...values);
  }

  async past(act, ...values) {
    const done = await (await import("./log-past.js"))[act](this, ...values);
    await this.flush();
    return done;
  }

  // Kept lines first, then live ones behind them; the ring knows which come twice.
  begin() {
    this.end = watch(this.dataset.topic, (message) => this.receive(message));
    return this.hold(() => (location.hash.startsWith("#t=") ? this.past("arrive") : this.store.older(PAGE)));
  }

  // Live lines wait for what is done.
  async hold(work) {
    this.held ??= [];
    await work();
    const { held } = this;
    this.held = null;
    for (const [lines, skipped] of held) this.take(lines, skipped);
    await this.flush();
  }

  receive(message) {
    if (message.connected !== undefined) this.connected(message.connected);
    if (message.refused !== undefined || message.closed !== undefined) this.say("Ended: deleted, or not yours to see any more");
    if (message.lines === undefined) return;
    const lines = message.lines.map((line) => [line, this.stream.key(line)]);
    if (!this.held && needsColours(message.lines)) this.hold(loadColours);
    if (this.held) this.held.push([lines, message.skipped]);
    else this.take(lines, message.skipped);
  }

  connected(on) {
    if (on) this.stream = new Stream();
    this.say(on ? "Live" : "Reconnecting");
    if (on && this.wasDown) this.catchUp();
    this.wasDown = !on;
  }

  say(words) {
    if (this.state.textContent !== words) this.state.textContent = words;
  }

  // What was written while the socket was down.
  catchUp() {
    const { newest } = this.ring;
    if (this.held || !newest) return;
    this.instances.load();
    this.hold(() => this.past("catchUp", newest));
  }

  take(lines, skipped) {
    if (skipped) {
      const time = lines[0]?.[0].time ?? this.ring.newest;
      this.ring.note(time, `${skipped} lines skipped, since they came faster than this page reads`, {
        from: this.ring.newest || time,
        to: time,
      });
    }
    const passes = this.filter() ?? (() => true);
    for (const [line, key] of lines) {
      const entry = this.ring.add(line, key);
      if (!entry) continue;
      this.instances.seen(line.instance);
      if (!this.rows.following && passes(entry)) this.fresh += 1;
    }
    if (this.ring.entries.length > MOST_LINES + ROOM) this.ring.trim();
    this.soon();
  }

  soon() {
    if (this.flushing) return;
    this.flushing = true;
    requestAnimationFrame(() => {
      this.flushing = false;
      this.flush();
    });
  }

  // Matches what is new and shows what passes the filters.
  async flush() {
    this.ring.trim();
    if (this.finder?.active && !(await this.finder.mark(this.ring.entries))) return;
    const passes = this.filter();
    this.rows.show(passes ? this.ring.entries.filter(passes) : this.ring.entries);
    this.finder?.tell();
    this.tellJump();
    this.empty.hidden = this.rows.view.length > 0;
  }

  // Whether an entry passes, or null where all do; controls are read once, not for each of 20,000 entries.
  filter() {
    const { level, filter } = this.form.elements;
    const { hidden } = this.instances;
    const least = LEVELS[level.value];
    const onlyHits = filter.checked && this.finder?.active;
    if (!least && !onlyHits && !hidden.size) return null;
    return (entry) =>
      entry.note !== undefined ||
      (LEVELS[entry.level] >= least && !(onlyHits && entry.hits === null) && !hidden.has(entry.instance));
  }

  build(entry, used) {
    if (entry.note) return noteRow(entry);
    return lineRow(entry, used, {
      sources: this.sources,
      mode: this.form.elements.times.value,
      selected: entry === this.selected,
      current: entry === this.finder?.current,
    });
  }

  scrolled() {
    if (this.rows.following) this.fresh = 0;
    this.tellJump();
    if (this.rows.following || this.rows.box.scrollTop >= NEAR_TOP_PX) return;
    this.store.older(PAGE).then((found) => found && this.flush());
  }

  tellJump() {
    this.jump.hidden = this.rows.following;
    const words = this.fresh ? `Jump to latest, ${this.fresh} new` : "Jump to latest";
    const span = this.jump.querySelector("span");
    if (span.textContent !== words) span.textContent = words;
  }

  toEnd() {
    this.fresh = 0;
    this.rows.toEnd();
    this.tellJump();
    this.rows.box.focus({ preventScroll: true });
  }
}

customElements.define("log-viewer", LogViewer);
