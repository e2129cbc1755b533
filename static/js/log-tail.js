// <log-tail data-topic="logs:VERSION">: the newest lines of all instances. Follows until one scrolls up.
// Lines are put in as text only, so escape sequences and HTML in them are inert.
import { loadColours, needsColours, parse } from "./log-line.js";
import { Sources } from "./log-row.js";
import { watch } from "./live.js";

const MOST_LINES = 2000;
const NEAR_END_PX = 24;

class LogTail extends HTMLElement {
  connectedCallback() {
    this.lines = this.querySelector("[data-lines]");
    this.state = this.querySelector("[data-state]");
    this.jump = this.querySelector("[data-jump]");
    this.paused = false;
    this.following = true;
    this.fresh = 0;
    this.held = [];
    this.sources = new Sources();
    // instance -> {time, number} of its newest line; the number counts the lines of one time. `heard` is of this socket
    // and `last` of all: a new socket begins with lines that were shown already.
    this.heard = new Map();
    this.last = new Map();
    this.querySelector("[data-pause]").addEventListener("click", (event) => this.pause(event.currentTarget));
    this.querySelector("[data-clear]").addEventListener("click", () => this.lines.replaceChildren());
    this.jump.addEventListener("click", () => this.toEnd());
    this.lines.addEventListener("scroll", () => this.scrolled());
    this.end = watch(this.dataset.topic, (message) => this.receive(message));
  }

  disconnectedCallback() {
    this.end();
  }

  receive(message) {
    if (message.connected) this.heard.clear();
    if (message.connected !== undefined) this.say(message.connected ? "Live" : "Reconnecting");
    if (message.lines === undefined && message.refused === undefined && message.closed === undefined) return;
    if (message.refused !== undefined || message.closed !== undefined) {
      this.state.textContent = "Ended: deleted, or not yours to see any more";
      return;
    }
    message = { ...message, lines: message.lines?.filter((line) => this.isNew(line)) };
    if (this.paused) {
      this.held.push(message);
      this.held.splice(0, this.held.length - 200);
    } else {
      this.show(message);
    }
  }

  say(text) {
    if (this.state.textContent !== text) this.state.textContent = text;
  }

  async show(message) {
    if (this.loading || needsColours(message.lines ?? [])) await (this.loading ??= loadColours());
    const rows = (message.lines ?? []).map((line) => this.row(line));
    if (message.skipped) rows.unshift(this.note(`${message.skipped} lines skipped`));
    if (rows.length === 0) return;
    this.lines.querySelector("[data-empty]")?.remove();
    this.lines.append(...rows);
    while (this.lines.childElementCount > MOST_LINES) this.lines.firstElementChild.remove();
    if (this.following) {
      this.lines.scrollTop = this.lines.scrollHeight;
    } else {
      this.fresh += rows.length;
      this.jump.hidden = false;
      this.jump.querySelector("span").textContent = `Jump to latest, ${this.fresh} new`;
    }
  }

  isNew({ instance, time }) {
    const heard = this.heard.get(instance);
    const number = heard?.time === time ? heard.number + 1 : 0;
    const last = this.last.get(instance);
    this.heard.set(instance, { time, number });
    if (last && (time < last.time || (time === last.time && number <= last.number))) return false;
    this.last.set(instance, { time, number });
    return true;
  }

  row(line) {
    const row = document.createElement("div");
    const time = document.createElement("time");
    const source = document.createElement("span");
    const text = document.createElement("span");
    const at = new Date(line.time);
    const raw = String(line.text);
    const { shown, json, level } = parse(raw);
    time.textContent = Number.isNaN(at.getTime()) ? "" : at.toLocaleTimeString([], { hour12: false });
    time.title = line.time;
    const { colour, short } = this.sources.of(line.instance);
    source.textContent = short;
    source.title = `${line.instance}, revision ${line.revision}`;
    source.className = `log-source log-colour-${colour}`;
    text.textContent = shown;
    if (json) text.title = raw;
    row.className = `log-row log-columns log-level-${level}`;
    row.append(time, source, text);
    return row;
  }

  note(text) {
    const note = document.createElement("p");
    note.className = "log-note";
    note.textContent = text;
    return note;
  }

  pause(button) {
    this.paused = !this.paused;
    button.setAttribute("aria-pressed", String(this.paused));
    button.querySelector("[data-label]").textContent = this.paused ? "Resume" : "Pause";
    button.querySelector("[data-when=on]").hidden = this.paused;
    button.querySelector("[data-when=off]").hidden = !this.paused;
    if (this.paused) return;
    for (const message of this.held.splice(0)) this.show(message);
  }

  scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.lines;
    this.following = scrollTop + clientHeight >= scrollHeight - NEAR_END_PX;
    if (!this.following) return;
    this.fresh = 0;
    this.jump.hidden = true;
  }

  toEnd() {
    this.lines.scrollTop = this.lines.scrollHeight;
    this.lines.focus({ preventScroll: true });
  }
}

customElements.define("log-tail", LogTail);

for (const log of document.querySelectorAll("[data-to-end]")) log.scrollTop = log.scrollHeight;
