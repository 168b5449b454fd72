"""Run the lessons in fresh kernels, one after the other, and store their outputs: `make notebooks`.

    python notebooks/execute.py                        # all
    python notebooks/execute.py 05_freezing            # those named; a path does as well

What is stored is what the tests compare with. So a cell whose outputs nbval would collect in another way than
JupyterLab does is refused. Files stay small and their changes readable: no widget state, no times, no metadata
but the kernel's language; an output that differs only in what the tests do not compare stays as it was. A
lesson that fails is left as it was, and the exit code is 1.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.displayhook import DisplayHook
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from nbval.plugin import get_sanitize_patterns

HERE = Path(__file__).resolve().parent
PATTERNS = get_sanitize_patterns((HERE.parent / "tests/nbval_sanitize.cfg").read_text(encoding="utf-8"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"


class Client(NotebookClient):
    """A client that runs a lesson with this Python, and notes what nbval would collect differently."""

    def __init__(self, notebook: NotebookNode, folder: Path) -> None:
        kernel = AsyncKernelManager(
            kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()
        )
        where = {"metadata": {"path": str(folder)}}
        super().__init__(
            notebook, km=kernel, timeout=600, startup_timeout=300, iopub_timeout=300, raise_on_iopub_timeout=True,
            record_timing=False, coalesce_streams=True, resources=where, on_cell_start=self._remember,
        )  # fmt: skip
        self.current, self.refused = 0, {}

    def _remember(self, cell: NotebookNode, cell_index: int) -> None:
        self.current = cell_index

    def process_message(self, msg: dict, cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """Note an output that is changed after it was shown."""
        if msg["msg_type"] == "clear_output":
            self.refused[cell_index] = "clears its output; show the last state only, or use a widget"
        if msg["msg_type"] == "update_display_data":
            self.refused[cell_index] = "updates a display; show the last state only, or use a widget"
        return super().process_message(msg, cell, cell_index)

    def register_output_hook(self, msg_id: str, hook) -> None:
        """Note that what is printed goes into a widget."""
        self.refused[self.current] = "prints into an Output widget; use the widget's append_stdout"
        super().register_output_hook(msg_id, hook)


def execute(path: Path) -> None:
    """Run a lesson and store its outputs; if anything is wrong, raise ValueError and leave the file as it was."""
    before, after = nbformat.read(path, as_version=4), nbformat.read(path, as_version=4)
    client = Client(after, path.parent)
    try:
        client.execute(stderr=subprocess.DEVNULL)  # where kernels greet
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise ValueError(f"{_name(after, client.current)}: {_reason(error)}") from error
    refused = {**_semicolons(after), **client.refused}
    if refused:
        said = [f"{_name(after, index)} {what}" for index, what in sorted(refused.items())]
        raise ValueError("tests cannot compare this: " + "; ".join(said))
    _clean(after)
    _keep_what_is_the_same(before, after)
    _write(path, nbformat.writes(after) + "\n")


def _name(notebook: NotebookNode, index: int) -> str:
    number = sum(cell.cell_type == "code" for cell in notebook.cells[:index])  # as nbval counts
    return f"Cell {number} ({notebook.cells[index].source.strip().splitlines()[0]})"


def _reason(error: Exception) -> str:
    return (
        f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error).splitlines()[0]
    )


def _semicolons(notebook: NotebookNode) -> dict[int, str]:
    said = "ends with ';', which hides the value from JupyterLab but not from nbval; end with plt.show() or None"
    python = TransformerManager().transform_cell
    return {
        index: said
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and DisplayHook.semicolon_at_end_of_expression(python(cell.source))
    }


def _clean(notebook: NotebookNode) -> None:
    """Drop what would be different, or useless, on another machine."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({"tags": cell.metadata.tags} if "tags" in cell.metadata else {})
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)  # without its state a front end could only show an error
            output.pop("transient", None)


def _keep_what_is_the_same(before: NotebookNode, after: NotebookNode) -> None:
    """Keep outputs that differ only in what the tests do not compare, such as a measured time."""
    old = {cell.id: cell for cell in before.cells if cell.cell_type == "code"}
    for cell in after.cells:
        if cell.id in old and _sanitized(old[cell.id].outputs) == _sanitized(cell.get("outputs")):
            cell.outputs = old[cell.id].outputs


def _sanitized(value: Any) -> Any:
    if isinstance(value, dict):
        # Pictures are compared as they are; a regex takes minutes in a megabyte of base64.
        return {key: item if key.startswith("image/") else _sanitized(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_sanitized(item) for item in value]
    if isinstance(value, str):
        for regex, replacement in PATTERNS:
            value = re.sub(regex, replacement, value)
    return value


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)


def main() -> int:
    """Run the named lessons, or all; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description="Run the lessons in fresh kernels and store their outputs.")
    parser.add_argument(
        "lessons", nargs="*", metavar="LESSON", help="such as 05_freezing, or a path; all, if none is named"
    )
    named = parser.parse_args().lessons
    paths = [Path(name) if name.endswith(".ipynb") else HERE / f"{name}.ipynb" for name in named]
    os.environ.update(FTLAB_CI="1", OMP_NUM_THREADS="1")  # as under test; kernels inherit it
    failures = [path for path in paths or sorted(HERE.glob("*.ipynb")) if not _try(path)]
    return 1 if failures else 0


def _try(path: Path) -> bool:
    start = time.monotonic()
    try:
        execute(path)
    except (OSError, ValueError) as error:
        print(f"{path.name}: not stored. {error}", file=sys.stderr)
        return False
    print(f"{path.name}: {time.monotonic() - start:.0f} s")
    return True


if __name__ == "__main__":
    sys.exit(main())
