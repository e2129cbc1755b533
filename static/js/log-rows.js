// A scrolling box that builds only the rows one can see. They are one line high until some need more (log-heights.js).
const OVERSCAN = 8;
const NEAR_END = 24;

export class Rows {
  view = [];
  following = true;
  #count = 0; // entries of the view when it was last shown: live lines join it before the next time
  #nodes = new Map();
  #height = -1;
  #seen = 0;
  #lastTop = 0;
  #queued = false;

  // build(entry, used) makes a row's element, of one that went out of sight where there is one; prefix is the number
  // of characters before a line's text.
  constructor(box, { build, prefix, scrolled }) {
    Object.assign(this, { box, build, prefix, tell: scrolled, wrap: false, heights: null });
    this.space = box.querySelector("[data-space]");
    this.rows = box.querySelector("[data-rows]");
    box.addEventListener("scroll", () => this.#scrolled());
    this.resized = new ResizeObserver(() => {
      this.measure();
      this.show(this.view);
    });
    this.resized.observe(box);
    this.measure();
  }

  close() {
    this.resized.disconnect();
  }

  measure() {
    const probe = document.createElement("span");
    probe.className = "log-probe";
    probe.textContent = "0".repeat(100);
    this.box.append(probe);
    const { width, height } = probe.getBoundingClientRect();
    probe.remove();
    this.line = height || 20;
    this.columns = Math.max(10, Math.floor((this.rows.clientWidth - 32) / (width / 100 || 8)));
    this.#seen = this.box.clientHeight;
    for (const entry of this.view) entry.size = 0;
  }

  // Shows other entries in place of those before; what one looks at stays where it is.
  show(view) {
    const anchor = this.following ? null : this.#anchor();
    this.view = view;
    this.#sum();
    if (anchor) {
      const at = view.indexOf(anchor.entry);
      if (at >= 0) this.box.scrollTop = this.#top(at) + anchor.offset;
    }
    this.render();
  }

  // From here on rows may be several lines high.
  async vary() {
    const { Heights } = await import("./log-heights.js");
    this.heights ??= new Heights(this);
    this.#sum();
  }

  async setWrap(wrap) {
    if (wrap) await this.vary();
    this.wrap = wrap;
    this.box.classList.toggle("log-wrapped", wrap);
    this.again();
  }

  // Builds everything anew: how rows look has changed.
  again() {
    for (const entry of this.view) entry.size = 0;
    for (const node of this.#nodes.values()) node.remove();
    this.#nodes.clear();
    this.show(this.view);
  }

  renew(entry) {
    entry.size = 0;
    this.#nodes.get(entry)?.remove();
    this.#nodes.delete(entry);
    this.show(this.view);
  }

  toEnd() {
    this.following = true;
    this.render();
  }

  to(entry) {
    const at = this.view.indexOf(entry);
    if (at < 0) return;
    this.following = false;
    this.#sum();
    this.box.scrollTop = Math.max(0, this.#top(at) - this.#seen / 3);
    this.#lastTop = this.box.scrollTop;
    this.render();
    this.tell();
  }

  #top(at) {
    return this.heights ? this.heights.top(at) : at * this.line;
  }

  #sum() {
    this.#count = this.view.length;
    this.heights?.sum(this.view);
    const height = this.#top(this.#count);
    if (height !== this.#height) this.space.style.height = `${(this.#height = height)}px`;
  }

  // The index of the entry at a height.
  #at(height) {
    const at = this.heights ? this.heights.at(height, this.#count) : Math.floor(height / this.line);
    return Math.max(0, Math.min(this.#count - 1, at));
  }

  #anchor() {
    const top = this.box.scrollTop;
    const at = this.#at(top);
    const entry = this.view[at];
    return entry ? { entry, offset: top - this.#top(at) } : null;
  }

  // Nothing is read from the page between the changes, so that it is laid out once.
  render() {
    const top = this.following ? Math.max(0, this.#height - this.#seen) : this.box.scrollTop;
    const from = Math.max(0, this.#at(top) - OVERSCAN);
    const to = Math.min(this.#count, this.#at(top + this.#seen) + 1 + OVERSCAN);
    this.#place(this.view.slice(from, to));
    this.rows.style.transform = `translateY(${this.#top(from)}px)`;
    if (this.following) this.box.scrollTop = this.#height;
    this.#lastTop = top;
    if (this.wrap && this.heights.wrong(this.#nodes)) this.#correct();
  }

  // Rows that stay keep their place, and with it focus and selection; the others are filled anew.
  #place(shown) {
    const before = this.#nodes;
    const wanted = new Set(shown);
    const gone = [...before].filter(([entry]) => !wanted.has(entry));
    const held = this.#held();
    const free = gone.filter(([entry, node]) => !entry.note && !held(node)).map(([, node]) => node);
    // Where all rows change, as while lines rush by, they stay where they are and only say something else.
    if (free.length < before.size) for (const [, node] of gone) node.remove();
    const nodes = (this.#nodes = new Map());
    let used = 0;
    let next = this.rows.firstElementChild;
    for (const entry of shown) {
      const node = before.get(entry) ?? this.build(entry, free[used]);
      if (node === free[used]) used += 1;
      if (node === next) next = next.nextElementSibling;
      else this.rows.insertBefore(node, next);
      nodes.set(entry, node);
    }
    while (used < free.length) free[used++].remove();
  }

  // Whether a person has the focus or a selection in a row: it must not become another one.
  #held() {
    const selection = getSelection();
    const selected = !selection.isCollapsed;
    const focused = document.activeElement?.closest(".log-row");
    return (node) => node === focused || (selected && selection.containsNode(node, true));
  }

  #correct() {
    const anchor = this.following ? null : this.#anchor();
    this.#sum();
    if (anchor) this.box.scrollTop = this.#top(this.view.indexOf(anchor.entry)) + anchor.offset;
    else this.box.scrollTop = this.#height;
    this.#lastTop = this.box.scrollTop;
  }

  #scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.box;
    const before = this.following;
    const end = scrollTop + clientHeight >= scrollHeight - NEAR_END;
    // Lines that come while the box scrolls move its end away; only going up means that somebody reads.
    if (end) this.following = true;
    else if (scrollTop < this.#lastTop - 2) this.following = false;
    this.#lastTop = scrollTop;
    this.tell();
    if (this.#queued || (before && this.following)) return;
    this.#queued = true;
    requestAnimationFrame(() => {
      this.#queued = false;
      this.render();
    });
  }
}
