// What every page uses. Elements of single pages are loaded by those pages.
import "./confirm.js";
import "./live.js";
import "./menu.js";
import "./shortcuts.js";
import "./times.js";
import "./toast.js";
import { copy } from "./clipboard.js";

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
    this.addEventListener("click", () => copy(this.dataset.text ?? document.getElementById(this.dataset.from).textContent));
  }
}

// One tab panel of several, by the ARIA tabs pattern: arrow keys move, Tab leaves.
class TabSet extends HTMLElement {
  connectedCallback() {
    this.tabs = [...this.querySelectorAll(":scope > [role=tablist] > [role=tab]")];
    for (const tab of this.tabs) {
      tab.addEventListener("click", () => this.select(tab));
      tab.addEventListener("keydown", (event) => this.move(event));
    }
  }

  select(chosen) {
    for (const tab of this.tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
    }
  }

  move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = (this.tabs.indexOf(event.target) + step + this.tabs.length) % this.tabs.length;
    this.tabs[at].focus();
    this.select(this.tabs[at]);
  }
}

// Filters of a list apply as they are chosen.
document.addEventListener("change", (event) => event.target.closest("form[data-auto-submit]")?.requestSubmit());

customElements.define("theme-toggle", ThemeToggle);
customElements.define("copy-button", CopyButton);
customElements.define("tab-set", TabSet);

// On a narrow screen the current tab may lie beyond the edge of its strip.
function showCurrent() {
  for (const strip of document.querySelectorAll(".tabs, .sidebar-nav")) {
    const current = strip.querySelector("[aria-current]");
    if (current) strip.scrollLeft = current.offsetLeft - strip.offsetLeft - (strip.clientWidth - current.offsetWidth) / 2;
  }
}
showCurrent();
addEventListener("resize", showCurrent);
