// A scrolling box that builds only the rows one can see. Rows are a whole number of lines high, which is known
// beforehand since the font has one width; what was wrong about that is corrected once a row is measured.
const OVERSCAN = 8;
const NEAR_END = 24;

export class Rows {
  view = [];
  following = true;
  #tops = new Float64Array(1);
  #nodes = new Map();
  #lastTop = 0;
  #queued = false;

  // build(entry) makes a row's element; prefix is the number of characters before a line's text.
  constructor(box, { build, prefix, scrolled }) {
    Object.assign(this, { box, build, prefix, tell: scrolled, wrap: false });
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
    for (const entry of this.view) entry.size = 0;
  }

  // Shows other entries in place of those before; what one looks at stays where it is.
  show(view) {
    const anchor = this.following ? null : this.#anchor();
    this.view = view;
    this.#sum();
    if (anchor) {
      const at = view.indexOf(anchor.entry);
      if (at >= 0) this.box.scrollTop = this.#tops[at] + anchor.offset;
    }
    this.render();
  }

  setWrap(wrap) {
    this.wrap = wrap;
    this.box.classList.toggle("log-wrapped", wrap);
    this.again();
  }

  // Builds everything anew: how rows look has changed.
  again() {
    for (const entry of this.view) entry.size = 0;
    this.#nodes.clear();
    this.show(this.view);
  }

  renew(entry) {
    entry.size = 0;
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
    this.box.scrollTop = Math.max(0, this.#tops[at] - this.box.clientHeight / 3);
    this.#lastTop = this.box.scrollTop;
    this.render();
    this.tell();
  }

  get top() {
    return this.#at(this.box.scrollTop);
  }

  #sum() {
    const { view } = this;
    if (this.#tops.length < view.length + 1) this.#tops = new Float64Array(Math.max(view.length + 1, 1024) * 2);
    for (let at = 0; at < view.length; at++) {
      const entry = view[at];
      entry.size ||= this.#size(entry);
      this.#tops[at + 1] = this.#tops[at] + entry.size * this.line;
    }
    this.space.style.height = `${this.#tops[view.length]}px`;
  }

  #size(entry) {
    if (entry.note) return 1;
    const fold = entry.open ? entry.detail.split("\n") : [];
    if (!this.wrap) return 1 + fold.length;
    const lines = (length) => Math.max(1, Math.ceil(length / this.columns));
    return fold.reduce((sum, text) => sum + lines(text.length), lines(this.prefix() + entry.shown.length));
  }

  // The index of the entry at a height.
  #at(height) {
    let [low, high] = [0, this.view.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#tops[middle] <= height) low = middle;
      else high = middle - 1;
    }
    return Math.max(0, low);
  }

  #anchor() {
    const at = this.top;
    const entry = this.view[at];
    return entry ? { entry, offset: this.box.scrollTop - this.#tops[at] } : null;
  }

  render() {
    if (this.following) this.box.scrollTop = this.#tops[this.view.length];
    this.#lastTop = this.box.scrollTop;
    const from = Math.max(0, this.#at(this.box.scrollTop) - OVERSCAN);
    const to = Math.min(this.view.length, this.#at(this.box.scrollTop + this.box.clientHeight) + 1 + OVERSCAN);
    const shown = this.view.slice(from, to);
    const nodes = new Map(shown.map((entry) => [entry, this.#nodes.get(entry) ?? this.build(entry)]));
    const wanted = new Set(nodes.values());
    // Rows that stay keep their place, and with it focus and selection.
    for (const old of [...this.rows.children]) if (!wanted.has(old)) old.remove();
    let next = this.rows.firstElementChild;
    for (const node of wanted) {
      if (node === next) next = next.nextElementSibling;
      else this.rows.insertBefore(node, next);
    }
    this.#nodes = nodes;
    this.rows.style.transform = `translateY(${this.#tops[from]}px)`;
    if (this.wrap) this.#correct();
  }

  #correct() {
    let wrong = false;
    for (const [entry, node] of this.#nodes) {
      const size = Math.max(1, Math.round(node.offsetHeight / this.line));
      if (size !== entry.size) [entry.size, wrong] = [size, true];
    }
    if (!wrong) return;
    const anchor = this.following ? null : this.#anchor();
    this.#sum();
    if (anchor) this.box.scrollTop = this.#tops[this.view.indexOf(anchor.entry)] + anchor.offset;
    else this.box.scrollTop = this.#tops[this.view.length];
    this.#lastTop = this.box.scrollTop;
  }

  #scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.box;
    const end = scrollTop + clientHeight >= scrollHeight - NEAR_END;
    // Lines that come while the box scrolls move its end away; only going up means that somebody reads.
    if (end) this.following = true;
    else if (scrollTop < this.#lastTop - 2) this.following = false;
    this.#lastTop = scrollTop;
    this.tell();
    if (this.#queued) return;
    this.#queued = true;
    requestAnimationFrame(() => {
      this.#queued = false;
      this.render();
    });
  }
}
