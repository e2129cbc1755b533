// One websocket per page. The server sends hints ("deployment X changed") and log lines; pages refetch what is shown.
// Its messages are described in monitoring/consumers.py.
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
  if (words.textContent === text) return;
  words.textContent = text;
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
    this.timer ??= setTimeout(async () => {
      // Needed once something has changed; without it parts are swapped all the same.
      await import("./live-swap.js").catch(() => {});
      this.timer = undefined;
      this.stale = false;
      this.dispatchEvent(new CustomEvent("live-change"));
    }, FOLD_MS);
  }
}

customElements.define("live-region", LiveRegion);

// What a person opened or closed is known before the first part is swapped.
document.addEventListener("click", (event) => {
  const details = event.target.closest("summary")?.closest("details[id]");
  if (details) details.dataset.touched = "1";
});
