// <log-viewer data-topic data-version data-history data-instances data-previous>: the log of all instances of a version
// as one, live and from the store, in order of time. The server's side is in monitoring/views/logs.py and the protocol
// of live lines in monitoring/consumers.py.
import { LEVELS } from "./log-line.js";
import { Instances } from "./log-instances.js";
import { Ring, Stream } from "./log-ring.js";
import { TIME_WIDTH, Sources, lineRow, linked, linkTo, noteRow, shownTime } from "./log-row.js";
import { Rows } from "./log-rows.js";
import { Search } from "./log-search.js";
import { copy } from "./clipboard.js";
import { toast } from "./toast.js";
import { watch } from "./live.js";

const MOST_LINES = 20000;
const PAGE = 500;
const BIG_PAGE = 5000;
const AROUND = 200;
const TYPED_MS = 200;
const NEAR_TOP_PX = 200;
const PREFIX = 9; // the short name, the fold and the spaces between

class LogViewer extends HTMLElement {
  connectedCallback() {
    const part = (name) => this.querySelector(`[data-${name}]`);
    this.ring = new Ring(MOST_LINES);
    this.search = new Search();
    this.sources = new Sources();
    this.stream = new Stream();
    this.fresh = 0;
    this.held = null; // live lines that wait until what was missed is there
    this.complete = false; // the store has nothing older
    this.current = null;
    this.selected = linked(location.hash);
    this.state = part("state");
    this.jump = part("jump");
    this.count = part("count");
    this.form = part("controls");
    this.rows = new Rows(part("lines"), {
      build: (entry) => this.build(entry),
      prefix: () => TIME_WIDTH[this.form.elements.times.value] + PREFIX,
      scrolled: () => this.scrolled(),
    });
    this.instances = new Instances(part("sources"), {
      url: this.dataset.instances,
      topic: this.dataset.version,
      sources: this.sources,
      changed: () => this.flush(),
      previous: (one) => this.previous(one),
    });
    this.controls();
    this.clock = setInterval(() => this.tick(), 1000);
    this.begin();
  }

  disconnectedCallback() {
    this.end?.();
    this.instances.close();
    this.rows.close();
    this.search.stop();
    clearInterval(this.clock);
    clearTimeout(this.typed);
    removeEventListener("hashchange", this.moved);
    document.removeEventListener("keydown", this.keys);
  }

  controls() {
    const { elements } = this.form;
    this.remember();
    this.rows.setWrap(elements.wrap.checked);
    this.form.addEventListener("submit", (event) => event.preventDefault());
    elements.search.addEventListener("input", () => {
      clearTimeout(this.typed);
      this.typed = setTimeout(() => this.find(), TYPED_MS);
    });
    elements.search.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.step(event.shiftKey ? -1 : 1);
    });
    elements.pattern.addEventListener("change", () => this.find());
    for (const name of ["filter", "level"]) elements[name].addEventListener("change", () => this.flush());
    elements.wrap.addEventListener("change", () => this.rows.setWrap(elements.wrap.checked));
    elements.times.addEventListener("change", () => this.rows.again());
    elements.history.addEventListener("change", () => this.chooseHistory(elements.history.value));
    this.form.addEventListener("change", () => this.keep());
    this.querySelector("[data-previous-hit]").addEventListener("click", () => this.step(-1));
    this.querySelector("[data-next-hit]").addEventListener("click", () => this.step(1));
    this.jump.addEventListener("click", () => this.toEnd());
    this.moved = () => this.goToLink();
    addEventListener("hashchange", this.moved);
    this.keys = (event) => this.pressed(event);
    document.addEventListener("keydown", this.keys);
  }

  // How one likes to read is kept between visits; what one looks for is not.
  keep() {
    const { times, wrap } = this.form.elements;
    localStorage.setItem("log", JSON.stringify({ times: times.value, wrap: wrap.checked }));
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
    const { search, wrap } = this.form.elements;
    const acts = { "/": () => search.focus(), n: () => this.step(1), N: () => this.step(-1), w: () => wrap.click(), G: () => this.toEnd() };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }

  // Kept lines first, then live ones behind them; the ring knows which come twice.
  async begin() {
    this.held = [];
    this.end = watch(this.dataset.topic, (message) => this.receive(message));
    if (this.selected) await this.around(this.selected);
    else await this.older(PAGE);
    this.release();
  }

  receive(message) {
    if (message.connected !== undefined) this.connected(message.connected);
    if (message.refused !== undefined || message.closed !== undefined) {
      this.say("You may no longer see this log");
      return;
    }
    if (message.lines === undefined) return;
    const lines = message.lines.map((line) => [line, this.stream.key(line)]);
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

  // What was written while the socket was down. Instances are heard at different times: go back a little further.
  async catchUp() {
    const newest = this.ring.newest;
    if (this.held || !newest) return;
    this.held = [];
    this.instances.load();
    const from = new Date(Date.parse(newest) - 5000).toISOString();
    await this.forward(from, (last) => last);
    this.release();
  }

  release() {
    const held = this.held ?? [];
    this.held = null;
    for (const [lines, skipped] of held) this.take(lines, skipped);
    this.flush();
  }

  take(lines, skipped) {
    if (skipped) {
      const time = lines[0]?.[0].time ?? this.ring.newest;
      this.ring.note(time, `${skipped} lines skipped, since they came faster than this page reads`, {
        from: this.ring.newest || time,
        to: time,
      });
    }
    const passes = this.filter();
    for (const [line, key] of lines) {
      const entry = this.ring.add(line, key);
      if (!entry) continue;
      this.instances.seen(line.instance);
      if (!this.rows.following && passes(entry)) this.fresh += 1;
    }
    this.ring.trim();
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
    const { generation } = this.search;
    if (this.search.active) {
      await this.search.run(this.ring.entries);
      if (generation !== this.search.generation) return;
    }
    this.rows.show(this.ring.entries.filter(this.filter()));
    this.tellHits();
    this.tellJump();
    this.querySelector("[data-empty]").hidden = this.rows.view.length > 0;
  }

  // Whether an entry passes, asked of 20,000 ten times a second: controls are read once.
  filter() {
    const { level, filter } = this.form.elements;
    const { hidden } = this.instances;
    const least = LEVELS[level.value];
    const onlyHits = filter.checked && this.search.active;
    return (entry) =>
      entry.note !== undefined ||
      (LEVELS[entry.level] >= least && !(onlyHits && entry.hits === null) && !(hidden.size && hidden.has(entry.instance)));
  }

  build(entry) {
    if (entry.note) return noteRow(entry, (note) => this.fill(note));
    return lineRow(entry, {
      sources: this.sources,
      mode: this.form.elements.times.value,
      selected: entry.time === this.selected?.time && entry.instance === this.selected?.instance,
      current: entry === this.current,
      fold: (folded) => this.rows.renew(folded),
      select: (chosen) => this.select(chosen),
    });
  }

  find() {
    const { search, pattern } = this.form.elements;
    this.search.set(search.value, pattern.checked);
    this.current = null;
    for (const entry of this.ring.entries) entry.hits = null;
    this.rows.again();
    this.flush().then(() => this.rows.again());
  }

  get hits() {
    return this.search.active ? this.rows.view.filter((entry) => entry.hits) : [];
  }

  // To the next hit, or the one before; from the row at the top when there was none yet.
  step(direction) {
    const { hits } = this;
    if (!hits.length) return;
    const at = this.current ? hits.indexOf(this.current) : direction > 0 ? -1 : 0;
    const before = this.current;
    this.current = hits[(at + direction + hits.length) % hits.length];
    if (before) this.rows.renew(before);
    this.rows.renew(this.current);
    this.rows.to(this.current);
    this.tellHits();
  }

  tellHits() {
    const { hits } = this;
    const at = this.current ? `${hits.indexOf(this.current) + 1} of ` : "";
    const words = this.search.problem || (this.search.active ? `${at}${hits.length} ${hits.length === 1 ? "line" : "lines"}` : "");
    if (this.count.textContent !== words) this.count.textContent = words;
    this.count.classList.toggle("log-problem", this.search.problem !== "");
    this.form.elements.search.setAttribute("aria-invalid", String(this.search.problem !== ""));
  }

  scrolled() {
    if (this.rows.following) this.fresh = 0;
    this.tellJump();
    if (this.rows.box.scrollTop < NEAR_TOP_PX && !this.rows.following) this.older(PAGE);
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

  tick() {
    if (document.hidden || this.form.elements.times.value !== "relative") return;
    for (const link of this.rows.rows.querySelectorAll(".log-time")) {
      link.textContent = shownTime(linked(link.getAttribute("href")).time, "relative");
    }
  }

  // From the store: {lines, more}, or null when it does not answer.
  async ask(url, query) {
    try {
      const answer = await fetch(`${url}?${new URLSearchParams(query)}`, { headers: { Accept: "application/json" } });
      const body = await answer.json();
      if (answer.ok) return body;
      toast(Object.values(body.errors ?? {}).flat()[0] ?? "The log could not be read", "error");
    } catch {
      // The banner says that the server is away.
    }
    return null;
  }

  addAll(lines) {
    const stream = new Stream();
    for (const line of lines) this.ring.add(line, stream.key(line));
    if (this.rows.following) this.ring.trim();
  }

  async older(limit, since = 0) {
    if (this.loading || this.complete || this.ring.full) return;
    this.loading = true;
    const oldest = this.ring.entries.find((entry) => !entry.note)?.time;
    const query = { limit, ...(oldest && !since ? { before: oldest } : {}), ...(since ? { since } : {}) };
    const found = await this.ask(this.dataset.history, query);
    this.loading = false;
    if (!found) return;
    let { lines } = found;
    // An answer that was cut begins amid lines of one time, whose numbers are unknown: they come with the next one.
    if (found.more && lines.length && lines[0].time !== lines.at(-1).time) lines = lines.filter((line) => line.time !== lines[0].time);
    this.complete = !found.more && !since;
    this.addAll(lines);
    await this.flush();
  }

  // Lines from a time on, page by page; the last time there, and whether more follow.
  async forward(from, until, pages = 4) {
    let at = from;
    for (let page = 0; page < pages; page++) {
      const found = await this.ask(this.dataset.history, { from: at, limit: BIG_PAGE });
      if (!found) return { at, more: true };
      this.addAll(found.lines);
      const last = found.lines.at(-1)?.time ?? at;
      if (!found.more || last === at || last > until(last)) return { at: last, more: found.more && last !== at };
      at = last;
    }
    return { at, more: true };
  }

  async chooseHistory(choice) {
    const [kind, number] = choice.split(":");
    this.rows.following = true;
    this.complete = false;
    if (kind === "since") await this.older(BIG_PAGE, Number(number));
    for (let pages = 4; kind === "last" && pages > 0 && this.ring.entries.length < Number(number) && !this.complete; pages--) {
      await this.older(Math.min(BIG_PAGE, Number(number)));
    }
  }

  // A line by its address, with what was around it.
  async around({ time }) {
    this.rows.following = false;
    const [before, after] = await Promise.all([
      this.ask(this.dataset.history, { before: time, limit: AROUND }),
      this.ask(this.dataset.history, { from: time, limit: BIG_PAGE }),
    ]);
    this.addAll([...(before?.lines ?? []), ...(after?.lines ?? [])]);
    const last = after?.lines.at(-1)?.time;
    if (after?.more) this.ring.note(last, "More lines were written from here on.", { from: last, to: null });
    await this.flush();
    this.goToLink();
  }

  async goToLink() {
    const wanted = linked(location.hash);
    if (!wanted) return;
    this.selected = wanted;
    const entry = this.ring.entries.find((one) => one.time === wanted.time && (!wanted.instance || one.instance === wanted.instance));
    if (entry) {
      this.rows.again();
      this.rows.to(entry);
    } else if (!this.sought) {
      this.sought = true;
      await this.around(wanted);
      this.sought = false;
    } else {
      toast("That line is not kept any more", "error");
    }
  }

  select(entry) {
    this.selected = { time: entry.time, instance: entry.instance };
    history.replaceState(null, "", linkTo(entry));
    this.rows.again();
    copy(location.href);
  }

  // Loads what a note stands for.
  async fill(note) {
    this.ring.remove(note);
    const { from, to } = note.action;
    const { at, more } = await this.forward(from, () => to ?? "9", 1);
    if (more && (!to || at < to)) this.ring.note(at, "More lines were written from here on.", { from: at, to });
    await this.flush();
  }

  async previous(one) {
    const found = await this.ask(this.dataset.previous, { instance: one.id });
    if (!found) return false;
    if (!found.lines.length) {
      toast("The cluster keeps no log of the container before", "error");
      return true;
    }
    const stream = new Stream();
    const keys = found.lines.map((line) => [line, stream.key(line)]);
    for (const [line, key] of keys) this.ring.add(line, key);
    const last = found.lines.at(-1);
    this.ring.note(`${last.time}~`, `Container of ${one.name} ended here and was started again.`);
    await this.flush();
    const entry = this.ring.entries.findLast((row) => row.time === last.time && row.instance === one.name);
    if (entry) this.rows.to(entry);
    return true;
  }
}

customElements.define("log-viewer", LogViewer);
