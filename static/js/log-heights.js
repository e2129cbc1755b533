// Heights of rows that wrap or are unfolded. They are a whole number of lines, which is known beforehand since the font
// has one width; what was wrong about that is corrected once a row is measured.
export class Heights {
  #tops = new Float64Array(1);

  constructor(rows) {
    this.rows = rows;
  }

  top(at) {
    return this.#tops[at];
  }

  sum(view) {
    if (this.#tops.length < view.length + 1) this.#tops = new Float64Array(Math.max(view.length + 1, 1024) * 2);
    for (let at = 0; at < view.length; at++) {
      const entry = view[at];
      entry.size ||= this.#size(entry);
      this.#tops[at + 1] = this.#tops[at] + entry.size * this.rows.line;
    }
  }

  #size(entry) {
    if (entry.note) return 1;
    const fold = entry.open ? entry.detail.split("\n") : [];
    if (!this.rows.wrap) return 1 + fold.length;
    const lines = (length) => Math.max(1, Math.ceil(length / this.rows.columns));
    return fold.reduce((sum, text) => sum + lines(text.length), lines(this.rows.prefix() + entry.shown.length));
  }

  // The index of the entry at a height, of so many.
  at(height, count) {
    let [low, high] = [0, count - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#tops[middle] <= height) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  // Whether one of the rows that are shown has another size than was thought; it is known from then on.
  wrong(nodes) {
    let wrong = false;
    for (const [entry, node] of nodes) {
      const size = Math.max(1, Math.round(node.offsetHeight / this.rows.line));
      if (size !== entry.size) [entry.size, wrong] = [size, true];
    }
    return wrong;
  }
}
