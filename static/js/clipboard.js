import { toast } from "./toast.js";

// Copies text and says so. The clipboard API needs a secure context; plain http to another host has none.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    toast("Your browser does not allow copying here; select the text and copy it yourself", "error");
  }
}
