// On a page that stands in for one that cannot be shown just now: looks for it every few seconds, and goes there when
// it answers. Not by a refresh of its own, which would take the place of whoever reads it.
const EVERY_MS = 5000;

setInterval(async () => {
  if (document.hidden) return;
  const answer = await fetch(location.href, { redirect: "manual" }).catch(() => null);
  if (answer && answer.status < 500) location.replace(location.href);
}, EVERY_MS);
