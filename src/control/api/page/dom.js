// Elements, made without markup: whatever a name or a client says stays text.

const SVG = "http://www.w3.org/2000/svg";

const $ = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Writes only what differs, so that selections and screen readers are left in peace.
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function show(node, isShown) {
  node.hidden = !isShown;
}

// Sets a notice, or hides it where there is nothing to say.
function notice(node, text) {
  say(node, text || "");
  show(node, Boolean(text));
}

// Makes the children of `parent` tell `items`, one each: those that stay are changed in place, so that focus and hover stay, too.
// `create` gives a node with a method `tell(item)`.
function keyed(parent, items, keyOf, create) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let node = before.get(key);
    if (node) before.delete(key);
    else {
      node = create(item);
      node.dataset.key = key;
    }
    node.tell(item);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  for (const gone of before.values()) gone.remove();
}

// A table row of cells: [text of its head, classes]. `tell` gets the cells and the item.
function row(columns, tell) {
  const cells = columns.map(([label, classes]) => make("td", { role: "cell", "data-label": label, class: classes }));
  const node = make("tr", { role: "row" }, ...cells);
  node.tell = (item) => tell(cells, item);
  return node;
}

// Tables keep their meaning where the style shows rows as cards.
for (const table of document.querySelectorAll("table")) {
  table.setAttribute("role", "table");
  for (const part of table.querySelectorAll("thead, tbody")) part.setAttribute("role", "rowgroup");
  for (const line of table.querySelectorAll("tr")) line.setAttribute("role", "row");
  for (const head of table.querySelectorAll("th")) {
    head.setAttribute("role", "columnheader");
    head.setAttribute("scope", "col");
  }
}

// A bar with a name, a value and what stands beside it. `part` is 0 to 1.
function bar() {
  const [name, value, beside, fill] = [make("span", { class: "name" }), make("span"), make("small"), make("i")];
  const node = make("li", {}, name, make("span", { class: "value" }, value, beside), make("span", { class: "track" }, fill));
  node.tell = (item) => {
    say(name, item.name);
    name.title = item.name;
    say(value, item.value);
    say(beside, item.beside || "");
    fill.style.setProperty("--w", `${Math.min(100, 100 * item.part).toFixed(1)}%`);
    fill.className = item.tone || "hits";
  };
  return node;
}

const toasts = $("toasts");
const TOASTS_MAX = 4;

// Says something for a while; `undo` adds a button.
function toast(text, { tone = "", undo = null } = {}) {
  const node = make("div", { class: "toast", "data-tone": tone }, make("span", {}, text));
  if (undo) {
    node.append(make("button", { type: "button", class: "small", onclick: () => { node.remove(); undo(); } }, "Undo"));
  }
  toasts.append(node);
  while (toasts.children.length > TOASTS_MAX) toasts.firstElementChild.remove();
  // Who holds the pointer over it, or has the focus in it, is not done.
  const end = () => (node.matches(":hover, :focus-within") ? setTimeout(end, 1000) : node.remove());
  setTimeout(end, undo ? 12000 : 6000);
}
