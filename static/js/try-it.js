// <try-it>: with "Show parts as they come", reads the answer as a stream: parts as text, the finished answer as the
// same fragment that htmx gets otherwise. Without the box htmx sends the form.
class TryIt extends HTMLElement {
  connectedCallback() {
    this.answer = this.querySelector("#answer");
    // Before htmx, which listens on the form itself.
    this.addEventListener("htmx:confirm", (event) => {
      const form = event.target;
      if (!form.elements?.stream?.checked) return;
      event.preventDefault();
      this.stream(form);
    });
  }

  async stream(form) {
    const button = form.querySelector("[type=submit]");
    const parts = document.createElement("pre");
    parts.className = "parts";
    parts.tabIndex = 0;
    this.answer.replaceChildren(parts);
    button.disabled = true;
    form.classList.add("htmx-request");
    try {
      const response = await fetch(form.getAttribute("hx-post"), { method: "POST", body: this.body(form) });
      if (!response.ok || !response.body) throw new Error(`The server refused this (${response.status})`);
      for await (const { name, text } of events(response.body)) {
        if (name === "answer") this.finish(text);
        else parts.textContent += text;
      }
    } catch (error) {
      const line = document.createElement("p");
      line.className = "error";
      line.textContent = error.message;
      this.answer.append(line);
    } finally {
      button.disabled = false;
      form.classList.remove("htmx-request");
    }
  }

  body(form) {
    const data = new FormData(form);
    data.set("csrfmiddlewaretoken", JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"]);
    return data;
  }

  // The fragment is the server's own page, like every other fragment; parts are never put in as HTML.
  finish(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    this.answer.append(template.content);
  }
}

// Server-sent events of a response's body: {name, text}.
async function* events(body) {
  let rest = "";
  // A reader, since Safari does not iterate over streams.
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value: chunk } = await reader.read();
    if (done) return;
    const blocks = (rest + chunk).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const value = (field) => lines.filter((line) => line.startsWith(`${field}: `)).map((line) => line.slice(field.length + 2));
      yield { name: value("event")[0] ?? "message", text: value("data").join("\n") };
    }
  }
}

customElements.define("try-it", TryIt);
