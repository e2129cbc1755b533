// Lines from the store, page by page, into a viewer's ring. The server's side is monitoring/views/logs.py.
import { Stream } from "./log-ring.js";
import { loadColours, needsColours } from "./log-line.js";
import { toast } from "./toast.js";

export class Store {
  complete = false; // nothing is older than what the ring holds

  constructor(url, ring, rows) {
    Object.assign(this, { url, ring, rows });
  }

  // What an address answers, {lines, more}, or null when it does not.
  async ask(query, url = this.url) {
    try {
      const answer = await fetch(`${url}?${new URLSearchParams(query)}`, { headers: { Accept: "application/json" } });
      const body = await answer.json();
      if (answer.ok) {
        if (needsColours(body.lines)) await loadColours();
        return body;
      }
      toast(Object.values(body.errors ?? {}).flat()[0] ?? "The log could not be read", "error");
    } catch {
      // The banner says that the server is away.
    }
    return null;
  }

  add(lines) {
    const stream = new Stream();
    for (const line of lines) this.ring.add(line, stream.key(line));
    if (this.rows.following) this.ring.trim();
  }

  // Lines before the oldest one, or those of the last seconds; false when there was nothing to ask for.
  async older(limit, since = 0) {
    if (this.loading || this.complete || this.ring.full) return false;
    this.loading = true;
    const oldest = this.ring.entries.find((entry) => !entry.note)?.time;
    const found = await this.ask({ limit, ...(oldest && !since ? { before: oldest } : {}), ...(since ? { since } : {}) });
    this.loading = false;
    if (!found) return false;
    let { lines } = found;
    // An answer that was cut begins amid lines of one time, whose numbers are unknown: they come with the next one.
    if (found.more && lines.length && lines[0].time !== lines.at(-1).time) lines = lines.filter((line) => line.time !== lines[0].time);
    this.complete = !found.more && !since;
    this.add(lines);
    return true;
  }
}
