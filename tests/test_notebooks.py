"""What holds for every lesson's file; nbval and the guard see to it that it runs and shows what is stored."""

import copy
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
PLACES = {ROOT, Path.home(), Path(tempfile.gettempdir())} - {
    Path("/")
}  # somebody without a home is at home there
MACHINE = "|".join(
    [re.escape(str(place)) for place in sorted(PLACES)]
    + [r"/home/\w", r"/Users/\w", r"[A-Z]:\\\w", "site-packages", "ipykernel_"]
)
EXECUTE = "; run: make notebooks"


def problems(notebook: NotebookNode) -> Iterator[str]:
    """Say everything that is wrong with a lesson's file."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not notebook.cells or not notebook.cells[0].source.startswith("# "):
        yield "the first cell is not a title"
    if notebook.metadata != METADATA:
        yield f"the metadata is not only that of any Python 3{EXECUTE}"
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield f"the cells were not run once, in order, in a fresh kernel{EXECUTE}"
    for cell in notebook.cells:
        for problem in _cell_problems(cell):
            yield f"{problem}, in the cell:\n{cell.source}"
    for cell, asserting in _not_compared(code):
        if asserting is None or "assert " not in asserting.source:
            yield f"outputs that are not compared, and no cell after it that asserts what holds:\n{cell.source}"


def _not_compared(code: list[NotebookNode]) -> Iterator[tuple[NotebookNode, NotebookNode | None]]:
    """Yield the cells whose outputs nbval ignores, each with the next cell that is compared."""
    following = None
    for cell in reversed(code):
        if "nbval-ignore-output" in _marks(cell):
            yield cell, following
        else:
            following = cell


def _marks(cell: NotebookNode) -> str:
    return f"{cell.metadata.get('tags', '')} {cell.source}".lower().replace("_", "-")


def _cell_problems(cell: NotebookNode) -> Iterator[str]:
    if set(cell.metadata) - {"tags"}:
        yield f"metadata {set(cell.metadata)}{EXECUTE}"
    if not cell.source.strip():
        yield "an empty cell"
    if re.search(r"""["']\.\.?/""", cell.source):
        yield "a path that is relative to the folder of the notebook"
    if "nbval-skip" in _marks(cell):
        yield "a cell that is never tested"
    for output in cell.get("outputs", []):
        yield from _output_problems(output, "raises-exception" in _marks(cell))


def _output_problems(output: NotebookNode, may_raise: bool) -> Iterator[str]:
    texts = [output.get("text", ""), *output.get("data", {}).values()]
    if found := re.search(MACHINE, " ".join(text for text in texts if isinstance(text, str))):
        yield f"the output shows a place on one machine ({found[0]})"
    if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
        yield f"the output is a widget's view without the widget{EXECUTE}"
    if output.output_type == "error" and not may_raise:
        yield f"the output is an exception{EXECUTE}"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_lessons_file_is_in_order(path):
    assert list(problems(nbformat.read(path, as_version=4))) == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_lessons_file_is_not_large(path):
    assert path.stat().st_size < 2 * 2**20


def test_there_are_lessons_and_their_names_sort_them():
    assert LESSONS
    assert all(re.fullmatch(r"\d\d_[a-z_]+", path.stem) for path in LESSONS)


# Each rule refuses what it is there for.


def good() -> NotebookNode:
    return new_notebook(
        metadata=copy.deepcopy(METADATA),
        cells=[
            new_markdown_cell("# Freezing"),
            new_code_cell(
                "1 + 1", execution_count=1, outputs=[new_output("execute_result", {"text/plain": "2"})]
            ),
            new_code_cell("assert 2 < 3", execution_count=2, metadata={"tags": ["hint"]}),
        ],
    )


def show(notebook: NotebookNode, **output) -> None:
    notebook.cells[1].outputs = [new_output(**output)]


BROKEN: dict[str, Callable[[NotebookNode], object]] = {
    "not a title": lambda nb: nb.cells.pop(0),
    "metadata is not only": lambda nb: nb.metadata.update(widgets={}),
    "in a fresh kernel": lambda nb: nb.cells[1].update(execution_count=7),
    "not run once": lambda nb: nb.cells[2].update(execution_count=None),
    "metadata {'execution'}": lambda nb: nb.cells[1].metadata.update(execution={}),
    "an empty cell": lambda nb: nb.cells[0].update(source="# Freezing") or nb.cells[2].update(source=" \n"),
    "relative to the folder": lambda nb: nb.cells[1].update(source="open('../data/emoji')"),
    "never tested": lambda nb: nb.cells[1].update(source="# NBVAL_SKIP\n1 + 1"),
    "and no cell after it": lambda nb: nb.cells[2].metadata.update(tags=["nbval-ignore-output"]),
    f"({ROOT})": lambda nb: show(nb, output_type="stream", name="stdout", text=f"in {ROOT}/data"),
    "(site-packages)": lambda nb: show(
        nb, output_type="display_data", data={"text/plain": "lib/site-packages/x"}
    ),
    "a widget's view": lambda nb: show(
        nb, output_type="display_data", data={"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
    ),
    "is an exception": lambda nb: show(nb, output_type="error", ename="ValueError", evalue="", traceback=[]),
}


def test_a_good_file_has_no_problems():
    assert list(problems(good())) == []


def test_an_expected_exception_and_an_asserted_output_are_in_order():
    notebook = good()
    notebook.cells[1].metadata.tags = ["nbval-ignore-output", "raises-exception"]
    show(notebook, output_type="error", ename="ValueError", evalue="", traceback=[])
    assert list(problems(notebook)) == []


@pytest.mark.parametrize("problem", BROKEN)
def test_a_broken_file_is_refused(problem):
    notebook = good()
    BROKEN[problem](notebook)
    found = list(problems(notebook))
    assert len(found) >= 1
    assert any(problem in said for said in found)
