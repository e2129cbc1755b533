// What every page uses. Elements of single pages are loaded by those pages.
import "./live.js";
import "./menu.js";
import "./shortcuts.js";
import "./times.js";
import "./toast.js";

class ThemeToggle extends HTMLElement {
  connectedCallback() {
    this.addEventListener("click", () => {
      const next = this.current() === "dark" ? "light" : "dark";
      document.documentElement.dataset.theme = next;
      localStorage.setItem("theme", next);
      this.show();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.show());
    this.show();
  }

  current() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  }

  show() {
    for (const part of this.querySelectorAll("[data-when]")) part.hidden = part.dataset.when !== this.current();
  }
}

class CopyButton extends HTMLElement {
  connectedCallback() {
    this.addEventListener("click", async () => {
      const text = this.dataset.text ?? document.getElementById(this.dataset.from).textContent;
      (await import("./clipboard.js")).copy(text);
    });
  }
}

document.addEventListener(
  "submit",
  async (event) => {
    const form = event.target;
    if (!form.dataset.confirm || form.dataset.confirmed) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    (await import("./confirm.js")).ask(form, event.submitter);
  },
  true,
);

// Filters of a list apply as they are chosen.
document.addEventListener("change", (event) => event.target.closest("form[data-auto-submit]")?.requestSubmit());

customElements.define("theme-toggle", ThemeToggle);
customElements.define("copy-button", CopyButton);

// On a narrow screen the current tab may lie beyond the edge of its strip.
function showCurrent() {
  for (const strip of document.querySelectorAll(".tabs, .sidebar-nav")) {
    const current = strip.querySelector("[aria-current]");
    if (current) strip.scrollLeft = current.offsetLeft - strip.offsetLeft - (strip.clientWidth - current.offsetWidth) / 2;
  }
}
showCurrent();
addEventListener("resize", showCurrent);
