// <fields-editor>: rows of name and type over a textarea that holds them as JSON.
class FieldsEditor extends HTMLElement {
  connectedCallback() {
    this.area = this.querySelector("textarea");
    this.rows = this.querySelector("[data-rows]");
    this.add = this.querySelector("[data-add]");
    this.kind = this.dataset.kind ? this.closest("form").elements[this.dataset.kind] : null;
    try {
      this.value = JSON.parse(this.area.value || "[]");
    } catch {
      return; // what was typed is no JSON: it stays for the person to mend
    }
    this.area.hidden = true;
    this.querySelector("[data-plain]").hidden = true;
    this.rows.addEventListener("input", () => this.write());
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest("[data-remove]")?.closest(".field-row");
      if (!row) return;
      row.remove();
      this.write();
      this.add.focus();
    });
    this.add.addEventListener("click", () => this.row({}).querySelector("[data-name]").focus());
    this.kind?.addEventListener("change", () => this.shown());
    this.shown();
  }

  // The fields as [{name, data_type}]; whatever else a field holds, such as a widget, is kept.
  set value(fields) {
    this.rows.replaceChildren();
    for (const field of fields) this.row(field);
    this.area.value = JSON.stringify(fields);
  }

  row(field) {
    const row = this.querySelector("template").content.firstElementChild.cloneNode(true);
    row.field = field;
    row.querySelector("[data-name]").value = field.name ?? "";
    row.querySelector("[data-type]").value = field.data_type ?? "double";
    this.rows.append(row);
    return row;
  }

  write() {
    const fields = [...this.rows.children].map((row) => ({
      ...row.field,
      name: row.querySelector("[data-name]").value.trim(),
      data_type: row.querySelector("[data-type]").value,
    }));
    this.area.value = JSON.stringify(fields.filter((field) => field.name));
  }

  shown() {
    const plain = this.kind?.value === "plain";
    this.rows.hidden = plain;
    this.add.hidden = plain;
    if (plain) this.value = [];
  }
}

customElements.define("fields-editor", FieldsEditor);
