// <upload-form>: sends its form with progress and shows the answer's errors beside their fields, keeping the file.
// Without this script the same form posts as usual and the server renders the errors.
const size = (bytes) => {
  const units = ["B", "KB", "MB", "GB"];
  let at = 0;
  let value = bytes;
  for (; value >= 1000 && at < units.length - 1; at += 1) value /= 1000;
  return `${value < 10 && at ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
};

const STILL = matchMedia("(prefers-reduced-motion: reduce)");

// The warning sign that errors have where the server wrote them; every page has one in its template of a toast.
function sign() {
  const found = document.querySelector("#toast-template")?.content.querySelector(".icon-alert");
  return found ? [found.cloneNode(true)] : [];
}

class UploadForm extends HTMLElement {
  connectedCallback() {
    this.form = this.querySelector("form");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.request) this.send();
    });
  }

  send() {
    this.clear();
    const request = new XMLHttpRequest();
    this.request = request;
    request.open("POST", this.form.action || location.href);
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => event.lengthComputable && this.progress(event));
    request.addEventListener("load", () => this.answered(request));
    request.addEventListener("error", () => this.failed("The server did not answer; check your connection and try again"));
    this.busy(true);
    request.send(new FormData(this.form));
  }

  progress({ loaded, total }) {
    this.querySelector("progress").value = (loaded / total) * 100;
    this.querySelector("[data-progress-text]").textContent =
      loaded < total ? `${size(loaded)} of ${size(total)}` : "Checking";
  }

  answered(request) {
    let answer;
    try {
      answer = JSON.parse(request.responseText);
    } catch {
      this.failed(`The server answered with status ${request.status}; reload the page and try again`);
      return;
    }
    if (answer.redirect) {
      location.assign(answer.redirect);
      return;
    }
    this.busy(false);
    this.show(answer.errors ?? {});
  }

  failed(text) {
    this.busy(false);
    this.show({ "": [text] });
  }

  busy(on) {
    if (!on) this.request = null;
    this.querySelector("[type=submit]").disabled = on;
    this.querySelector("[data-progress]").hidden = !on;
    this.querySelector("progress").value = 0;
    this.querySelector("[data-progress-text]").textContent = on ? "Sending" : "";
  }

  clear() {
    for (const place of this.querySelectorAll("[data-errors], [data-form-errors]")) place.replaceChildren();
    for (const control of this.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
  }

  show(errors) {
    let first = null;
    for (const [name, texts] of Object.entries(errors)) {
      const field = name && this.querySelector(`[data-field="${CSS.escape(name)}"]`);
      const place = field?.querySelector("[data-errors]") ?? this.querySelector("[data-form-errors]");
      const inline = place.hasAttribute("data-errors");
      for (const text of texts) {
        const line = document.createElement(inline ? "p" : "div");
        line.className = inline ? "error" : "note tone-bad";
        const words = document.createElement("span");
        words.textContent = inline || !name ? text : `${name}: ${text}`;
        line.append(...sign(), words);
        place.append(line);
      }
      const control = field?.querySelector("input:not([type=hidden], [type=radio]), select, textarea, input");
      control?.setAttribute("aria-invalid", "true");
      field?.closest("details")?.setAttribute("open", "");
      first ??= control?.offsetParent ? control : place;
    }
    first?.focus?.({ preventScroll: true });
    first?.scrollIntoView({ block: "center", behavior: STILL.matches ? "auto" : "smooth" });
  }
}

// <file-drop>: names the chosen file and lights up while one is dragged over it. The input covers it and takes the drop.
class FileDrop extends HTMLElement {
  connectedCallback() {
    this.input = this.querySelector("input[type=file]");
    this.input.addEventListener("change", () => this.named());
    for (const name of ["dragenter", "dragover"]) this.addEventListener(name, () => this.classList.add("drop-over"));
    for (const name of ["dragleave", "drop"]) this.addEventListener(name, () => this.classList.remove("drop-over"));
  }

  named() {
    const file = this.input.files[0];
    if (!file) return;
    this.querySelector("[data-name]").textContent = file.name;
    this.querySelector("[data-size]").textContent = size(file.size);
  }
}

customElements.define("upload-form", UploadForm);
customElements.define("file-drop", FileDrop);
