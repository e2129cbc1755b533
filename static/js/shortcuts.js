// Keys that work on every page. Letters do nothing while one types.
const GO = { d: "deployments", m: "models", e: "events", s: "settings" };
const WAIT_MS = 1200;
let went = 0;

const typing = (target) => target.closest?.("input, select, textarea, [contenteditable]");

document.addEventListener("keydown", async (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "k") {
    event.preventDefault();
    (await import("./palette.js")).open();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (event.key === "?") {
    (await import("./palette.js")).help();
  } else if (event.key === "g") {
    went = Date.now();
  } else if (event.key in GO && Date.now() - went < WAIT_MS) {
    const project = location.pathname.match(/^\/projects\/[^/]+\//)?.[0];
    if (project) location.assign(`${project}${GO[event.key]}/`);
  } else if (event.key === "/" && !document.querySelector("log-viewer")) {
    const search = document.querySelector("main input[type=search]");
    if (!search) return;
    event.preventDefault();
    search.focus();
  }
});

document.addEventListener("click", async (event) => {
  if (event.target.closest("[data-palette]")) (await import("./palette.js")).open();
});
