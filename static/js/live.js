// One websocket per page. The server sends hints ("deployment X changed") and log lines; pages refetch what is shown.
//
// To the server:   {"subscribe": [topic, ...]}, {"unsubscribe": [topic, ...]}
// From the server: {"changed": [topic, ...]}, {"logs": topic, "lines": [...], "skipped": n},
//                  {"refused": topic}, {"closed": topic}
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15000;
const BANNER_AFTER_MS = 3000;
const POLL_EVERY_MS = 5000;
const FOLD_MS = 250;
const NOT_SIGNED_IN = 4401;

const watchers = new Map(); // topic -> Set of functions that take the message
let socket = null;
let delay = FIRST_DELAY_MS;
let downSince = 0;
let poll = null;
let freshAt = Date.now(); // when the server was last heard
let ageing = null;

// Shows the banner above the page with a sentence, or hides it.
function say(text) {
  const banner = document.getElementById("live-banner");
  if (!banner) return;
  banner.hidden = !text;
  // Told once to those who listen; only those who look see the age tick.
  const [words, age] = banner.querySelectorAll("span");
  if (words.textContent !== text) words.textContent = text;
  clearInterval(ageing);
  age.textContent = "";
  if (text) ageing = setInterval(() => tellAge(age), 1000);
}

function tellAge(element) {
  const seconds = Math.round((Date.now() - freshAt) / 1000);
  element.textContent = seconds < 10 ? "" : `Data ${seconds < 120 ? `${seconds} s` : `${Math.floor(seconds / 60)} min`} old.`;
}

document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful) freshAt = Date.now();
});

const send = (message) => {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
};

function connect() {
  if (socket || watchers.size === 0) return;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/ws/live/`);
  socket.addEventListener("open", () => {
    const missed = downSince !== 0;
    delay = FIRST_DELAY_MS;
    downSince = 0;
    clearInterval(poll);
    poll = null;
    say("");
    send({ subscribe: [...watchers.keys()] });
    everywhere(missed ? { connected: true, changed: true } : { connected: true });
  });
  socket.addEventListener("message", (event) => {
    freshAt = Date.now();
    receive(JSON.parse(event.data));
  });
  socket.addEventListener("close", (event) => {
    socket = null;
    if (event.code === NOT_SIGNED_IN) {
      // Not a reload: something may be half typed on this page.
      say("You are signed out. Sign in again in another tab, then reload this page.");
      return;
    }
    if (!downSince) downSince = freshAt = Date.now(); // until now the socket would have told of any change
    everywhere({ connected: false });
    if (watchers.size === 0) return;
    poll ??= setInterval(fallBack, POLL_EVERY_MS);
    setTimeout(fallBack, BANNER_AFTER_MS);
    // Spread, so that a restarted server is not met by every browser at once.
    setTimeout(connect, delay * (0.5 + Math.random()));
    delay = Math.min(delay * 2, LONGEST_DELAY_MS);
  });
}

function fallBack() {
  if (!downSince || Date.now() - downSince < BANNER_AFTER_MS - 100) return;
  say("Live updates are interrupted. This page looks for news every few seconds until they return.");
  if (!document.hidden) everywhere({ changed: true });
}

function everywhere(message) {
  for (const [topic, functions] of watchers) for (const call of functions) call({ ...message, topic });
}

function receive(message) {
  const topic = message.changed ?? message.logs ?? message.refused ?? message.closed;
  for (const name of Array.isArray(topic) ? topic : [topic]) {
    for (const call of watchers.get(name) ?? []) call({ ...message, topic: name });
  }
}

// Calls `call` with every message about the topic, and with {connected} when the socket opens or closes; returns the
// function that ends it.
export function watch(topic, call) {
  const functions = watchers.get(topic) ?? new Set();
  functions.add(call);
  if (!watchers.has(topic)) {
    watchers.set(topic, functions);
    send({ subscribe: [topic] });
  }
  connect();
  if (socket?.readyState === WebSocket.OPEN) call({ connected: true, topic });
  return () => {
    functions.delete(call);
    if (functions.size) return;
    watchers.delete(topic);
    send({ unsubscribe: [topic] });
  };
}

// <live-region topics="deployment:ID ..." hx-get hx-trigger="live-change">: hints become one event, bursts are folded.
class LiveRegion extends HTMLElement {
  connectedCallback() {
    const topics = (this.getAttribute("topics") ?? "").split(/\s+/).filter(Boolean);
    this.ends = topics.map((topic) => watch(topic, (message) => message.changed && this.changed()));
    this.shown = () => document.hidden || !this.stale || this.changed();
    document.addEventListener("visibilitychange", this.shown);
  }

  disconnectedCallback() {
    for (const end of this.ends) end();
    document.removeEventListener("visibilitychange", this.shown);
    clearTimeout(this.timer);
  }

  changed() {
    this.stale = true;
    if (document.hidden) return;
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.stale = false;
      this.dispatchEvent(new CustomEvent("live-change"));
    }, FOLD_MS);
  }
}

customElements.define("live-region", LiveRegion);

// A refetched part that says the same as before is left alone: no flicker, and focus and selection stay.
const shownParts = new Map();
document.addEventListener("htmx:oobBeforeSwap", (event) => {
  const part = event.detail.fragment.firstElementChild ?? event.detail.fragment;
  const text = part.outerHTML;
  if (!part.id) return;
  if (shownParts.get(part.id) === text) {
    event.detail.shouldSwap = false;
    return;
  }
  shownParts.set(part.id, text);
  keepFocus(event.detail.target, part);
  // What a person opened or closed stays so; a log that shows its end goes on showing it.
  for (const old of event.detail.target.querySelectorAll("details[id]")) {
    const fresh = part.querySelector(`#${CSS.escape(old.id)}`);
    if (fresh && old.dataset.touched) fresh.open = old.open;
    if (fresh && old.dataset.touched) fresh.dataset.touched = "1";
  }
});

// Whoever was in a part that is replaced finds the same control focused in the new one.
let refocus = null;

function keepFocus(old, part) {
  const focused = document.activeElement;
  if (!focused || focused === document.body || !old.contains(focused)) return;
  const selector = "a, button, input, select, textarea, summary, [tabindex]";
  const name = (element) => element.id || element.getAttribute("href") || element.getAttribute("name") || element.textContent.trim();
  const same = (element) => element.tagName === focused.tagName && name(element) === name(focused);
  const index = [...old.querySelectorAll(selector)].filter(same).indexOf(focused);
  refocus = () => {
    const found = [...(document.getElementById(part.id)?.querySelectorAll(selector) ?? [])].filter(same);
    (found[index] ?? found[0])?.focus({ preventScroll: true });
  };
}

document.addEventListener("click", (event) => {
  const details = event.target.closest("summary")?.closest("details[id]");
  if (details) details.dataset.touched = "1";
});

document.addEventListener("htmx:oobAfterSwap", (event) => {
  refocus?.();
  refocus = null;
  for (const log of event.detail.target.ownerDocument.querySelectorAll("[data-to-end]")) log.scrollTop = log.scrollHeight;
});
