const STAY_MS = 6000;

// Shows a message for a while; errors stay until dismissed.
export function toast(text, kind = "success") {
  const item = document.getElementById("toast-template").content.firstElementChild.cloneNode(true);
  item.querySelector("p").textContent = text;
  for (const old of document.querySelectorAll(".toast")) if (old.textContent === item.textContent) old.remove();
  if (kind === "error") {
    item.classList.replace("tone-good", "tone-bad");
    item.dataset.keep = "";
  }
  document.querySelector(".toasts").append(item);
  leave(item);
}

function leave(item) {
  if (!("keep" in item.dataset)) setTimeout(() => item.remove(), STAY_MS);
}

for (const item of document.querySelectorAll(".toasts > .toast")) leave(item);

document.addEventListener("click", (event) => event.target.closest("[data-dismiss]")?.closest(".toast")?.remove());

// A fragment's answer may carry a toast: HX-Trigger: {"toast": {"text": ..., "kind": ...}}.
document.addEventListener("toast", (event) => toast(event.detail.text, event.detail.kind));

// What a page asks for by itself is told by its banner.
const told = ({ detail }) => detail.elt.dataset.quiet === undefined && detail.elt.localName !== "live-region";
document.addEventListener("htmx:sendError", (event) => {
  if (told(event)) toast("The server did not answer; check your connection", "error");
});
document.addEventListener("htmx:responseError", (event) => {
  if (told(event)) {
    toast(`The server refused this (${event.detail.xhr.status}); reload the page and try again`, "error");
  }
});
