// <metric-board>: charts of a version, its versions or its instances, from the REST API's columns. uPlot draws.
// Each chart can be read by keyboard (arrow keys move along it and the values are spoken) and as a table.
import { Chart, clock } from "./metric-chart.js";

const CHARTS = [
  { title: "Requests", unit: "rate", series: { requests: "Requests", errors: "Errors" } },
  { title: "Share of errors", unit: "share", series: { error_rate: "Errors" } },
  { title: "Latency", unit: "seconds", series: { p50: "p50", p95: "p95", p99: "p99" }, main: "p95" },
  { title: "In flight and queue", unit: "count", series: { in_flight: "In flight", queue: "Queued" } },
  { title: "Ready instances", unit: "count", series: { instances: "Instances" }, stepped: true },
  { title: "CPU cores", unit: "cores", series: { cpu: "CPU" } },
  { title: "Memory", unit: "bytes", series: { memory: "Memory", memory_peak: "Highest" } },
  { title: "Accelerators held", unit: "count", series: { accelerators: "Accelerators" }, stepped: true, optional: true },
  { title: "GPU use", unit: "share", series: { gpu_use: "In use" }, optional: true, zeros: true },
  { title: "GPU memory", unit: "bytes", series: { gpu_memory: "Used" }, optional: true, zeros: true },
  { title: "Restarts and cold starts", unit: "count", series: { restarts: "Restarts", cold_starts: "Cold starts" }, main: "cold_starts", stepped: true },
  { title: "Time of a cold start", unit: "seconds", series: { cold_start_p50: "p50", cold_start_p95: "p95" }, main: "cold_start_p95" },
];
const MOST_COMPARED = 8;
const SHORT_RANGES = ["5m", "15m", "1h"];
const OFTEN_MS = 10000;
const SELDOM_MS = 60000;

class MetricBoard extends HTMLElement {
  connectedCallback() {
    this.sources = JSON.parse(document.getElementById("metric-sources").textContent);
    this.form = this.querySelector("[data-controls]");
    this.state = this.querySelector("[data-state]");
    this.charts = CHARTS.map((each) => new Chart(each));
    this.querySelector("[data-charts]").append(...this.charts.map((chart) => chart.element));
    this.form.addEventListener("change", () => this.choose());
    this.theme = () => this.draw();
    this.media = matchMedia("(prefers-color-scheme: dark)");
    this.media.addEventListener("change", this.theme);
    this.themes = new MutationObserver(this.theme);
    this.themes.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    this.shown = () => document.hidden || this.load();
    document.addEventListener("visibilitychange", this.shown);
    this.load();
  }

  disconnectedCallback() {
    clearTimeout(this.timer);
    this.media.removeEventListener("change", this.theme);
    this.themes.disconnect();
    document.removeEventListener("visibilitychange", this.shown);
    for (const chart of this.charts) chart.close();
  }

  choose() {
    const url = new URL(location.href);
    url.searchParams.set("range", this.form.elements.range.value);
    history.replaceState(null, "", url);
    this.load();
  }

  chosen() {
    const scope = this.form.elements.scope.value;
    if (scope === "version" || scope === "deployment") return [{ label: "", url: this.sources[scope] }];
    if (scope.startsWith("instance:")) return [{ label: "", url: this.sources.instances[Number(scope.slice(9))].url }];
    return this.sources[scope].slice(0, MOST_COMPARED);
  }

  async load() {
    clearTimeout(this.timer);
    const range = this.form.elements.range.value;
    const asked = (this.asked = {});
    try {
      const found = await Promise.all(this.chosen().map((source) => this.fetch(source, range)));
      if (asked !== this.asked) return;
      this.found = found;
      this.at = Date.now();
      this.draw();
      this.state.textContent = found.length ? "" : "There is nothing to compare yet.";
    } catch (error) {
      if (asked !== this.asked) return;
      const age = this.at ? ` What you see is ${Math.round((Date.now() - this.at) / 1000)} s old.` : "";
      this.state.textContent = `The numbers could not be read (${error.message}).${age}`;
    }
    if (!document.hidden) this.timer = setTimeout(() => this.load(), SHORT_RANGES.includes(range) ? OFTEN_MS : SELDOM_MS);
  }

  async fetch({ label, url }, range) {
    const answer = await fetch(`${url}${url.includes("?") ? "&" : "?"}range=${range}`, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return { label, ...(await answer.json()) };
  }

  draw() {
    if (!this.found?.length) return;
    const times = [...new Set(this.found.flatMap((one) => one.times))].sort((a, b) => a - b);
    const markers = [...new Map(this.found.flatMap((one) => one.markers).map((one) => [one.rollout, one])).values()];
    for (const chart of this.charts) chart.show(times, this.lines(chart.about, times), markers);
    this.tellMarkers(markers);
  }

  // Of one source all series of a chart; of several, the chart's main series (else its first) of each.
  lines({ series, main = Object.keys(series)[0], optional, zeros }, times) {
    const single = this.found.length === 1 && !this.found[0].label;
    const wanted = single ? Object.entries(series) : [[main, series[main]]];
    const lines = this.found.flatMap((one) => {
      const at = new Map(one.times.map((time, index) => [time, index]));
      return wanted.map(([name, label]) => ({
        label: single ? label : one.label,
        values: times.map((time) => one.series[name][at.get(time)] ?? null),
      }));
    });
    const nothing = (value) => (zeros ? value === null : !value);
    return optional && lines.every((line) => line.values.every(nothing)) ? null : lines;
  }

  tellMarkers(markers) {
    const list = this.querySelector("[data-markers]");
    const rows = markers.map((one) => {
      const row = document.createElement("li");
      const link = document.createElement("a");
      link.href = `${this.sources.rollout}${one.rollout}/`;
      link.textContent = `Revision ${one.revision} of ${one.version}`;
      row.append(link, ` ${one.state.replace("_", " ")}, ${clock(one.time)}`);
      return row;
    });
    if (!rows.length) {
      const none = document.createElement("li");
      none.className = "muted";
      none.textContent = "None.";
      rows.push(none);
    }
    list.replaceChildren(...rows);
  }
}

customElements.define("metric-board", MetricBoard);
