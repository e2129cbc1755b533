// Times that stay true while the page is open: "5 min ago", and durations that tick.
const UNITS = [
  [86400, "d"],
  [3600, "h"],
  [60, "min"],
  [1, "s"],
];

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 1) return "< 1 s";
  const at = UNITS.findIndex(([size]) => whole >= size);
  const [size, unit] = UNITS[at];
  const [small, smallUnit] = UNITS[at + 1] ?? [];
  const rest = small ? Math.floor((whole % size) / small) : 0;
  return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${smallUnit}` : ""}`;
}

class RelativeTime extends HTMLElement {
  connectedCallback() {
    const time = this.querySelector("time");
    this.at = Date.parse(time.dateTime);
    time.title = new Date(this.at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
    this.text = time;
    this.tick();
  }

  tick() {
    const seconds = (Date.now() - this.at) / 1000;
    if (seconds < -1) {
      this.text.textContent = `in ${duration(-seconds)}`;
      return;
    }
    const words = seconds < 10 ? "just now" : seconds < 172800 ? `${duration(seconds - (seconds > 60 ? seconds % 60 : 0))} ago` : null;
    this.text.textContent = words ?? new Date(this.at).toLocaleDateString(undefined, { dateStyle: "medium" });
  }
}

class TimeElapsed extends HTMLElement {
  connectedCallback() {
    this.from = Date.parse(this.dataset.from);
    this.to = this.dataset.to ? Date.parse(this.dataset.to) : null;
    this.tick();
  }

  tick() {
    this.textContent = duration(((this.to ?? Date.now()) - this.from) / 1000);
  }
}

customElements.define("relative-time", RelativeTime);
customElements.define("time-elapsed", TimeElapsed);

setInterval(() => {
  if (document.hidden) return;
  for (const element of document.querySelectorAll("relative-time, time-elapsed[data-to='']")) element.tick();
}, 1000);
