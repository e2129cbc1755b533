// <source-picker>: shows the part of the chosen source and fills in what that source already knows.
const UNTOUCHED = ["name", "description", "environment", "input_type", "output_type"];

class SourcePicker extends HTMLElement {
  connectedCallback() {
    this.form = this.querySelector("form");
    this.known = JSON.parse(document.getElementById("source-data").textContent);
    this.written = {};
    this.addEventListener("change", (event) => this.changed(event.target));
    this.show();
    if (this.form.elements.source.value !== "package") this.fill();
  }

  changed(control) {
    if (control.name === "source") this.show();
    if (["source", "example", "model_version"].includes(control.name)) this.fill();
  }

  show() {
    const chosen = this.form.elements.source.value;
    for (const part of this.querySelectorAll("[data-source]")) part.hidden = part.dataset.source !== chosen;
  }

  fill() {
    const { source, example, model_version: model } = this.form.elements;
    const told = { example: this.known.examples[example?.value], model: this.known.models[model?.value] }[source.value] ?? {};
    if (source.value === "image" && this.known.image) told.environment = this.known.image;
    for (const name of UNTOUCHED) this.put(this.form.elements[name], name, told[name]);
    for (const name of ["input_fields", "output_fields"]) {
      const editor = this.querySelector(`fields-editor[data-field=${name}]`);
      if (editor && told[name]) {
        editor.value = told[name];
        editor.shown();
      }
    }
  }

  // Only over what is empty, a default, or was put here before: never over what a person typed.
  put(control, name, value) {
    if (!control || value === undefined || value === null) return;
    const initial = control instanceof HTMLSelectElement ? control.value : "";
    if (control.value && control.value !== (this.written[name] ?? initial)) return;
    control.value = value;
    this.written[name] = control.value;
    control.dispatchEvent(new Event("change"));
  }
}

customElements.define("source-picker", SourcePicker);
