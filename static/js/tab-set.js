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

customElements.define("tab-set", TabSet);
