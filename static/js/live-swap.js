// Parts of a page that are swapped while one looks at them. Loaded by live.js when something has changed.

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

document.addEventListener("htmx:oobAfterSwap", (event) => {
  refocus?.();
  refocus = null;
  for (const log of event.detail.target.ownerDocument.querySelectorAll("[data-to-end]")) log.scrollTop = log.scrollHeight;
});
