// The command palette (Ctrl or Cmd and K) and the list of shortcuts (?). Loaded when one of them is first asked for.
const MOST_SHOWN = 12;
const SHORTCUTS = [
  ["Ctrl K or ⌘ K", "Go to anything"],
  ["?", "This list"],
  ["/", "Search on this page"],
  ["g d, g m, g e, g s", "Deployments, models, events, settings"],
  ["n, N", "In a log: next and previous hit"],
  ["w", "In a log: wrap lines"],
  ["G", "In a log: jump to the latest line"],
  ["← →", "On a chart: read its values"],
  ["Esc", "Close what is open"],
];

let items = null;

function dialog(label) {
  const box = document.createElement("dialog");
  box.className = "dialog palette";
  box.setAttribute("aria-label", label);
  box.addEventListener("close", () => box.remove());
  box.addEventListener("click", (event) => event.target === box && box.close());
  document.body.append(box);
  return box;
}

// All letters in order, better the nearer together and the nearer to the beginning of words; -1 when one is missing.
function score(text, wanted) {
  const hay = text.toLowerCase();
  const first = hay.indexOf(wanted);
  for (let at = first; at >= 0 && wanted; at = hay.indexOf(wanted, at + 1)) {
    if (!/\w/.test(hay[at - 1] ?? " ")) return 2000 - at - hay.length / 100; // where a word begins
  }
  if (first >= 0) return 1000 - first - hay.length / 100;
  let [points, from] = [0, 0];
  for (const letter of wanted) {
    const found = hay.indexOf(letter, from);
    if (found < 0) return -1;
    points += found === from ? 5 : /\W/.test(hay[found - 1] ?? " ") ? 3 : 0;
    from = found + 1;
  }
  return points;
}

// Every word must be in the label, or begin the hint.
function points({ label, hint }, wanted) {
  const each = wanted.split(/\s+/).map((word) => (hint.toLowerCase().startsWith(word) ? 1 : score(label, word)));
  return each.includes(-1) ? -1 : each.reduce((sum, one) => sum + one, 0);
}

async function load() {
  const project = location.pathname.match(/^\/projects\/([^/]+)\//)?.[1] ?? "";
  const answer = await fetch(`/palette/?project=${project}`, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(`The server refused this (${answer.status})`);
  return (await answer.json()).items;
}

export async function open() {
  if (document.querySelector("dialog[open]")) return;
  const box = dialog("Go to");
  const input = document.createElement("input");
  const list = document.createElement("div");
  const state = document.createElement("p");
  input.className = "control";
  input.placeholder = "Go to a deployment, page or project";
  input.autocomplete = "off";
  input.spellcheck = false;
  list.id = "palette-list";
  state.className = "muted small";
  state.setAttribute("role", "status");
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Results");
  for (const [name, value] of Object.entries({ role: "combobox", "aria-controls": list.id, "aria-expanded": "true", "aria-autocomplete": "list", "aria-label": "Go to" })) {
    input.setAttribute(name, value);
  }
  box.append(input, list, state);
  box.showModal();
  let at = 0;
  const choose = (index) => {
    const rows = [...list.children];
    at = rows.length ? (index + rows.length) % rows.length : 0;
    rows.forEach((row, each) => row.setAttribute("aria-selected", String(each === at)));
    if (rows[at]) input.setAttribute("aria-activedescendant", rows[at].id);
    rows[at]?.scrollIntoView({ block: "nearest" });
  };
  const show = () => {
    const wanted = input.value.trim().toLowerCase();
    const found = (items ?? [])
      .map((item) => ({ item, points: wanted ? points(item, wanted) : 0 }))
      .filter(({ points }) => points >= 0)
      .sort((a, b) => b.points - a.points)
      .slice(0, MOST_SHOWN);
    list.replaceChildren(...found.map(({ item }, index) => row(item, index)));
    state.textContent = items && !found.length ? "Nothing of that name." : "";
    choose(0);
  };
  input.addEventListener("input", show);
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) choose(at + step);
    else if (event.key === "Enter") list.children[at]?.click();
    else return;
    event.preventDefault();
  });
  try {
    items = await load();
    show();
  } catch (error) {
    state.textContent = error.message;
  }
}

function row({ label, hint, url }, index) {
  const link = document.createElement("a");
  const small = document.createElement("span");
  link.id = `palette-${index}`;
  link.setAttribute("role", "option");
  link.href = url;
  link.tabIndex = -1;
  link.textContent = label;
  small.className = "muted small";
  small.textContent = hint;
  link.append(small);
  return link;
}

export function help() {
  if (document.querySelector("dialog[open]")) return;
  const box = dialog("Shortcuts");
  const heading = document.createElement("h2");
  const list = document.createElement("dl");
  const close = document.createElement("button");
  heading.textContent = "Shortcuts";
  list.className = "facts";
  for (const [keys, words] of SHORTCUTS) {
    const [term, told, key] = ["dt", "dd", "kbd"].map((tag) => document.createElement(tag));
    key.textContent = keys;
    term.append(key);
    told.textContent = words;
    list.append(term, told);
  }
  close.type = "button";
  close.className = "button";
  close.textContent = "Close";
  close.addEventListener("click", () => box.close());
  box.append(heading, list, close);
  box.showModal();
}
