// The view of NetworkTree. Python owns the rows; here they are drawn, and keys and clicks become messages.
// Accessibility follows the tree pattern of the ARIA Authoring Practices: one row takes the focus at a time.

const WORDS = new Map([[true, "trains"], [false, "frozen"], [null, "partly"]]);

function span(className, text = "") {
  const element = document.createElement("span");
  element.className = className;
  element.textContent = text;
  return element;
}

function makeRow(path) {
  const element = document.createElement("div");
  element.className = "ftlab-row";
  element.dataset.path = path;
  element.setAttribute("role", "treeitem");
  element.tabIndex = -1;
  const block = span("block");
  block.append(span("fold"), span("box"), span("name"));
  element.append(block, span("kind"), span("size"), span("bars"), span("state"), span("mark"));
  return element;
}

function makeBar(bar) {
  const element = span("bar", bar.text);
  element.style.setProperty("--share", `${(100 * bar.share).toFixed(1)}%`);
  element.title = `${bar.label}: ${bar.text || "none"}, ${(100 * bar.share).toFixed(1)} % of the whole`;
  return element;
}

function fillHead(element, row) {
  const labels = row ? row.bars.map((bar) => bar.label) : [];
  element.hidden = labels.length === 0;
  const bars = span("bars");
  bars.append(...labels.map((label) => span("label", label)));
  element.replaceChildren(span("block", "block"), span("kind", "kind"), bars);
}

function fillRow(element, row, isParent, checkable) {
  const word = WORDS.get(row.state) ?? "";
  const text = (part, value) => { element.querySelector(`.${part}`).textContent = value; };
  element.setAttribute("aria-level", row.depth + 1);
  if (checkable) element.setAttribute("aria-checked", row.state === null ? "mixed" : String(row.state));
  element.dataset.state = word;
  element.dataset.mark = row.mark;
  element.dataset.parent = isParent;
  element.style.setProperty("--depth", row.depth);
  text("name", row.name);
  text("kind", row.kind);
  text("size", row.size);
  element.querySelector(".bars").replaceChildren(...row.bars.map(makeBar));
  element.dataset.bars = row.bars.length > 0;
  text("state", word);
  const happened = [row.mark, row.reason].filter(Boolean).join(": ");
  text("mark", happened || row.note);
  const bars = row.bars.filter((bar) => bar.text).map((bar) => `${bar.label} ${bar.text}`);
  const size = row.bars.length ? row.size : `${row.size} parameters`;
  const said = [row.name, row.kind, size, ...bars, word, row.note, happened];
  element.setAttribute("aria-label", said.filter(Boolean).join(", "));
  element.title = happened && `${row.path || row.name} ${happened}`;
}

function render({ model, el }) {
  const tree = document.createElement("div");
  tree.className = "ftlab-tree";
  tree.setAttribute("role", "tree");
  const checkable = model.get("checkable");
  const space = checkable ? "space freezes or thaws" : "space shows more";
  tree.setAttribute("aria-label", `${model.get("label")}: arrow keys move, ${space}`);
  tree.dataset.checkable = checkable;
  const head = document.createElement("div"); // names the bars; a screen reader hears them in each row
  head.className = "ftlab-row ftlab-head";
  head.dataset.bars = true;
  head.setAttribute("aria-hidden", true);
  el.classList.add("ftlab-tree-view");
  el.replaceChildren(head, tree);

  const elements = new Map(); // path -> element
  const drawn = new Map(); // path -> what the element shows, as text, to redraw only what differs
  let parents = new Set();
  let active = "";

  const rowAt = (path) => model.get("rows").find((row) => row.path === path);
  const inSight = () => [...tree.children].filter((element) => !element.hidden);

  function drawRows() {
    const rows = model.get("rows");
    parents = new Set(rows.filter((row) => row.path !== "").map((row) => row.parent));
    for (const row of rows) {
      if (!elements.has(row.path)) elements.set(row.path, makeRow(row.path));
      const key = JSON.stringify([row, parents.has(row.path)]);
      if (drawn.get(row.path) === key) continue;
      fillRow(elements.get(row.path), row, parents.has(row.path), checkable);
      drawn.set(row.path, key);
    }
    const paths = new Set(rows.map((row) => row.path));
    for (const [path, element] of elements) {
      if (paths.has(path)) continue;
      element.remove();
      elements.delete(path);
      drawn.delete(path);
    }
    const wanted = rows.map((row) => elements.get(row.path));
    if (wanted.some((element, place) => tree.children[place] !== element)) tree.replaceChildren(...wanted);
    fillHead(head, rows[0]);
    drawFolds();
  }

  function drawFolds() {
    const expanded = new Set(model.get("expanded"));
    const sight = new Map();
    for (const row of model.get("rows")) {
      const element = elements.get(row.path);
      const shown = row.path === "" || (sight.get(row.parent) && expanded.has(row.parent));
      sight.set(row.path, shown);
      element.hidden = !shown;
      if (parents.has(row.path)) element.setAttribute("aria-expanded", expanded.has(row.path));
    }
    while (active !== "" && !sight.get(active)) active = rowAt(active)?.parent ?? "";
    focusable();
  }

  function focusable() {
    for (const [path, element] of elements) {
      element.tabIndex = path === active ? 0 : -1;
      if (!checkable) element.setAttribute("aria-selected", path === active);
    }
  }

  function activate(path) {
    active = path;
    focusable();
    elements.get(path)?.focus();
  }

  function setExpanded(path, open) {
    const others = model.get("expanded").filter((other) => other !== path);
    model.set("expanded", open ? [...others, path] : others);
    model.save_changes();
  }

  const toggle = (path) => model.send({ kind: "toggle", path });

  function step(by) {
    const rows = inSight();
    const next = rows[rows.findIndex((element) => element.dataset.path === active) + by];
    if (next) activate(next.dataset.path);
  }

  const keys = {
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    Home: () => activate(inSight()[0].dataset.path),
    End: () => activate(inSight().at(-1).dataset.path),
    " ": () => toggle(active),
    Enter: () => toggle(active),
    ArrowRight: () => {
      if (!parents.has(active)) return;
      if (model.get("expanded").includes(active)) step(1);
      else setExpanded(active, true);
    },
    ArrowLeft: () => {
      if (parents.has(active) && model.get("expanded").includes(active)) setExpanded(active, false);
      else if (active !== "") activate(rowAt(active).parent);
    },
  };

  tree.addEventListener("keydown", (event) => {
    const plain = !(event.ctrlKey || event.metaKey || event.altKey || event.shiftKey);
    if (!plain || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });
  tree.addEventListener("click", (event) => {
    const element = event.target.closest(".ftlab-row");
    if (!element) return;
    const path = element.dataset.path;
    activate(path);
    if (event.target.classList.contains("fold") && parents.has(path)) {
      setExpanded(path, !model.get("expanded").includes(path));
    } else toggle(path);
  });
  tree.addEventListener("focusin", (event) => {
    const path = event.target.closest(".ftlab-row")?.dataset.path;
    if (path !== undefined && path !== active) { active = path; focusable(); }
  });

  model.on("change:rows", drawRows);
  model.on("change:expanded", drawFolds);
  drawRows();
  return () => {
    model.off("change:rows", drawRows);
    model.off("change:expanded", drawFolds);
  };
}

export default { render };
