// One chart: drawn by uPlot, spoken by keyboard, and as a table.
const HEIGHT = 180;
const DASHES = [[], [6, 4], [2, 3], [10, 3, 2, 3]];
const MARKS = ["solid", "dashed", "dotted", "double"]; // the same, as a border in the legend
const COLOURS = 8;
const MOST_ROWS = 60;

const short = (value) => Number(value.toPrecision(3)).toLocaleString(undefined, { maximumSignificantDigits: 3 });

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; Math.abs(value) >= 1024 && at < units.length - 1; at++) value /= 1024;
  return `${short(value)} ${units[at]}`;
}

function seconds(value) {
  if (value === 0) return "0";
  return Math.abs(value) < 1 ? `${short(value * 1000)} ms` : `${short(value)} s`;
}

const UNITS = {
  rate: (value) => `${short(value)}/s`,
  share: (value) => `${short(value * 100)} %`,
  count: short,
  cores: (value) => short(Number(value.toPrecision(2))),
  bytes,
  seconds,
};

const told = (unit, value) => (value === null || value === undefined ? "none" : UNITS[unit](value));
// Of a tick of the axis: the day where days are counted, else the time.
function moment(time, step) {
  const at = new Date(time * 1000);
  if (step >= 86400) return at.toLocaleDateString([], { month: "short", day: "numeric" });
  const seconds = step < 60 ? { second: "2-digit" } : {};
  return at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false, ...seconds });
}

// With its zone: who reads it may not be where it happened.
export const clock = (time) => new Date(time * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "long" });

export class Chart {
  constructor(about) {
    this.about = about;
    this.element = document.createElement("figure");
    this.element.className = "card chart";
    this.element.tabIndex = 0;
    this.caption = document.createElement("figcaption");
    this.latest = document.createElement("span");
    this.latest.className = "chart-latest";
    this.caption.append(about.title, this.latest);
    this.plotted = document.createElement("div");
    this.plotted.className = "chart-plot";
    this.plotted.setAttribute("aria-hidden", "true");
    this.spoken = document.createElement("p");
    this.spoken.className = "visually-hidden";
    this.spoken.setAttribute("role", "status");
    this.table = this.#table();
    this.element.append(this.caption, this.plotted, this.spoken, this.table);
    this.element.setAttribute("aria-label", `${about.title}. Arrow keys read the values.`);
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.resized = new ResizeObserver(() => this.plot?.setSize({ width: this.#width(), height: HEIGHT }));
    this.resized.observe(this.plotted);
  }

  close() {
    this.resized.disconnect();
    this.plot?.destroy();
  }

  // lines: [{label, values}], or null when there is nothing of the kind.
  show(times, lines, markers) {
    this.element.hidden = lines === null;
    if (lines === null) return;
    Object.assign(this, { times, lines, markers });
    this.latest.textContent = this.#latest();
    const data = [times, ...lines.map((line) => line.values)];
    const form = JSON.stringify([lines.map((line) => line.label), this.#colour("chart-0"), this.#colour("line")]);
    if (this.plot && form === this.form) {
      this.plot.setData(data);
    } else {
      this.plot?.destroy();
      this.form = form;
      this.plot = new window.uPlot(this.#options(lines), data, this.plotted);
    }
    if (this.table.open) this.#fill();
  }

  // The last value there is, of the series that stands for the chart.
  #latest() {
    if (this.lines.length === 0) return "";
    const { series, main = Object.keys(series)[0], unit } = this.about;
    const line = this.lines.find((one) => one.label === series[main]);
    const value = line?.values.findLast((one) => one !== null);
    if (value === undefined) return "nothing in this time";
    return `${Object.keys(series).length > 1 ? `${line.label} ` : ""}${told(unit, value)}`;
  }

  #width() {
    return Math.max(200, this.plotted.clientWidth);
  }

  #colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  #options(lines) {
    const tell = (value) => told(this.about.unit, value);
    const [ink, grid] = [this.#colour("text-muted"), this.#colour("line")];
    const time = (_, ticks, __, ___, step) => ticks.map((tick) => moment(tick, step));
    const steps = this.about.unit === "bytes" ? Array.from({ length: 48 }, (_, power) => 2 ** power) : undefined;
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "11px system-ui" };
    return {
      width: this.#width(),
      height: HEIGHT,
      cursor: { sync: { key: "metrics" }, drag: { x: false, y: false } },
      legend: { live: true, markers: { dash: (_, at) => MARKS[(at - 1) % MARKS.length] } },
      scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
      axes: [{ ...axis, values: time }, { ...axis, size: 68, incrs: steps, values: (_, ticks) => ticks.map(tell) }],
      series: [
        { value: (_, time) => (time === null ? "" : clock(time)) },
        ...lines.map((line, at) => ({
          label: line.label,
          stroke: this.#colour(`chart-${at % COLOURS}`),
          width: 1.75,
          // Told apart without colour too.
          dash: DASHES[at % DASHES.length],
          points: { show: line.values.filter((value) => value !== null).length < 3 },
          paths: this.about.stepped ? window.uPlot.paths.stepped({ align: 1 }) : undefined,
          value: (_, value) => (value === null ? "" : tell(value)),
        })),
      ],
      hooks: { draw: [(plot) => this.#mark(plot)] },
    };
  }

  #mark(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = this.#colour("accent-ink");
    ctx.lineWidth = devicePixelRatio;
    ctx.font = `${10 * devicePixelRatio}px system-ui`;
    ctx.textAlign = "left";
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const { time, revision } of this.markers) {
      const x = Math.round(plot.valToPos(time, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const words = `r${revision}`;
      const room = ctx.measureText(words).width + 3 * devicePixelRatio;
      const left = x + room > bbox.left + bbox.width ? x - room : x + 3 * devicePixelRatio;
      ctx.fillText(words, left, bbox.top + 10 * devicePixelRatio);
    }
    ctx.restore();
  }

  #key(event) {
    if (event.target !== this.element || !this.times?.length) return;
    const last = this.times.length - 1;
    const at = this.at ?? last + 1;
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.at = Math.min(last, Math.max(0, moves[event.key]));
    this.plot.setCursor({ left: this.plot.valToPos(this.times[this.at], "x"), top: 10 });
    const values = this.lines.map((line) => `${line.label || this.about.title} ${told(this.about.unit, line.values[this.at])}`);
    this.spoken.textContent = `${clock(this.times[this.at])}: ${values.join(", ")}`;
  }

  #table() {
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    summary.textContent = "As a table";
    details.className = "chart-table";
    details.append(summary);
    details.addEventListener("toggle", () => details.open && this.#fill());
    return details;
  }

  // The latest first; of long ranges every so many.
  #fill() {
    const cell = (tag, text) => {
      const made = document.createElement(tag);
      made.textContent = text;
      if (tag === "th") made.scope = "col";
      return made;
    };
    const row = (tag, texts) => {
      const made = document.createElement("tr");
      made.append(...texts.map((text) => cell(tag, text)));
      return made;
    };
    const table = document.createElement("table");
    const [head, body] = [document.createElement("thead"), document.createElement("tbody")];
    const every = Math.ceil(this.times.length / MOST_ROWS) || 1;
    table.className = "table table-tight";
    head.append(row("th", ["Time", ...this.lines.map((line) => line.label || this.about.title)]));
    for (let at = this.times.length - 1; at >= 0; at -= every) {
      body.append(row("td", [clock(this.times[at]), ...this.lines.map((line) => told(this.about.unit, line.values[at]))]));
    }
    table.append(head, body);
    this.table.querySelector(".table-wrap")?.remove();
    const wrap = document.createElement("div");
    wrap.className = "table-wrap";
    wrap.append(table);
    this.table.append(wrap);
  }
}
