// One websocket per page. The server sends hints ("deployment X changed") and log lines; pages refetch what is shown.
//
// To the server:   {"subscribe": [topic, ...]}, {"unsubscribe": [topic, ...]}
// From the server: {"changed": topic}, {"refused": topic}, {"logs": topic, ...}
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15000;
const BANNER_AFTER_MS = 3000;
const POLL_EVERY_MS = 5000;

const watchers = new Map(); // topic -> Set of functions that take the message
let socket = null;
let delay = FIRST_DELAY_MS;
let downSince = 0;
let poll = null;

const banner = () => document.getElementById("live-banner");
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
    if (banner()) banner().hidden = true;
    send({ subscribe: [...watchers.keys()] });
    if (missed) everywhere({ changed: true });
  });
  socket.addEventListener("message", (event) => receive(JSON.parse(event.data)));
  socket.addEventListener("close", () => {
    socket = null;
    downSince ||= Date.now();
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
  if (banner()) banner().hidden = false;
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

// Calls `call` with every message about the topic; returns the function that ends it. `extra` goes with the subscription.
export function watch(topic, call) {
  const functions = watchers.get(topic) ?? new Set();
  functions.add(call);
  if (!watchers.has(topic)) {
    watchers.set(topic, functions);
    send({ subscribe: [topic] });
  }
  connect();
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
    this.ends = topics.map((topic) => watch(topic, () => this.changed()));
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
    }, 150);
  }
}

customElements.define("live-region", LiveRegion);

// A refetched part that says the same as before is left alone: no flicker, and focus and selection stay.
const shownParts = new Map();
document.addEventListener("htmx:oobBeforeSwap", (event) => {
  const part = event.detail.fragment.firstElementChild ?? event.detail.fragment;
  const text = part.outerHTML;
  if (!part.id) return;
  if (shownParts.get(part.id) === text) event.detail.shouldSwap = false;
  shownParts.set(part.id, text);
});
