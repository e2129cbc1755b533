const STAY_MS = 6000;

// Shows a message for a while; errors stay until dismissed.
export function toast(text, kind = "success") {
  const item = document.getElementById("toast-template").content.firstElementChild.cloneNode(true);
  item.querySelector("p").textContent = text;
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

document.addEventListener("htmx:sendError", () => toast("The server did not answer; check your connection", "error"));
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.elt.dataset.quiet === undefined) {
    toast(`The server refused this (${event.detail.xhr.status}); reload the page and try again`, "error");
  }
});
