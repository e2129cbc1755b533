// <form data-confirm="Question" data-confirm-text data-confirm-yes data-confirm-word> asks before it is sent. Loaded by
// app.js when one is.
const dialog = document.getElementById("confirm-dialog");
let waiting = null;

export function ask(form, submitter) {
  const { confirm, confirmText = "", confirmYes = "Continue", confirmWord = "" } = form.dataset;
  const typed = dialog.querySelector("[data-typed]");
  const yes = dialog.querySelector("[data-yes]");
  const input = typed.querySelector("input");
  dialog.querySelector("h2").textContent = confirm;
  dialog.querySelector("[data-text]").textContent = confirmText;
  dialog.querySelector("[data-word]").textContent = confirmWord;
  typed.hidden = !confirmWord;
  input.value = "";
  yes.textContent = confirmYes;
  yes.classList.toggle("button-danger", Boolean(submitter?.classList.contains("button-danger")));
  yes.disabled = Boolean(confirmWord);
  input.oninput = () => {
    yes.disabled = input.value !== confirmWord;
  };
  waiting = { form, submitter };
  dialog.returnValue = "";
  dialog.showModal();
  (confirmWord ? input : yes).focus();
}

// Enter in the word's input must not mean Cancel, the form's first button.
dialog.querySelector("#confirm-typed").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  dialog.querySelector("[data-yes]").click();
});

dialog.addEventListener("close", () => {
  const { form, submitter } = waiting ?? {};
  waiting = null;
  if (!form || dialog.returnValue !== "yes") return;
  form.dataset.confirmed = "1";
  form.requestSubmit(submitter);
  delete form.dataset.confirmed;
});
