// Runs before the first paint, so that a chosen theme never flashes: a classic script on purpose.
(() => {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
