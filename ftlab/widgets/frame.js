// The box around a panel: a named group for a screen reader, whose keys are its own.

// In command mode JupyterLab takes plain keys from whatever has the focus: an arrow in a dropdown would move on to
// the next cell. Keys with Ctrl, Alt or Cmd, Escape and Shift+Enter (run the cell) stay JupyterLab's.
function keepKey(event) {
  const theirs = event.ctrlKey || event.metaKey || event.altKey || event.key === "Escape";
  if (!theirs && !(event.shiftKey && event.key === "Enter")) event.stopPropagation();
}

function render({ model, el }) {
  let box = null;
  let waiting = 0;
  const attach = () => { // at first the view stands in no page
    box = el.closest(".ftlab-panel");
    if (!box) { waiting = requestAnimationFrame(attach); return; }
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", model.get("label"));
    box.addEventListener("keydown", keepKey);
  };
  attach();
  return () => {
    cancelAnimationFrame(waiting);
    box?.removeEventListener("keydown", keepKey);
  };
}

export default { render };
