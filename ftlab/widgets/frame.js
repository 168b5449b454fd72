// The box around a panel: a named group for a screen reader, whose keys are its own.

// In command mode JupyterLab takes plain keys from whatever has the focus: an arrow in a dropdown would move on to
// the next cell. Keys with Ctrl, Alt or Cmd, Escape and Shift+Enter (run the cell) stay JupyterLab's.
function keepKey(event) {
  const theirs = event.ctrlKey || event.metaKey || event.altKey || event.key === "Escape";
  if (!theirs && !(event.shiftKey && event.key === "Enter")) event.stopPropagation();
}

// ipywidgets gives the handle of a slider no name: it is that of the label before it.
function nameHandles(box) {
  for (const handle of box.querySelectorAll(".noUi-handle:not([aria-label])")) {
    const label = handle.closest(".widget-inline-hbox")?.querySelector(".widget-label")?.textContent;
    if (label) handle.setAttribute("aria-label", label);
  }
}

// ipywidgets gives what has no tooltip the tooltip "null".
function dropNulls(box) {
  for (const named of box.querySelectorAll('[title="null"]')) named.removeAttribute("title");
}

function tidy(box) {
  nameHandles(box);
  dropNulls(box);
}

function render({ model, el }) {
  let box = null;
  let waiting = 0;
  const later = new MutationObserver(() => tidy(box)); // a control is drawn when its model is here
  const attach = () => { // at first the view stands in no page
    box = el.closest(".ftlab-panel");
    if (!box) { waiting = requestAnimationFrame(attach); return; }
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", model.get("label"));
    box.addEventListener("keydown", keepKey);
    tidy(box);
    later.observe(box, { childList: true, subtree: true, attributeFilter: ["title"] });
  };
  attach();
  return () => {
    cancelAnimationFrame(waiting);
    later.disconnect();
    box?.removeEventListener("keydown", keepKey);
  };
}

export default { render };
