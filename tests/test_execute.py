"""`make notebooks` on real notebooks in a temporary folder."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

EXECUTE = Path(__file__).parents[1] / "notebooks/execute.py"


def write(path: Path, *sources: str, **metadata) -> Path:
    cells = [new_code_cell(source) for source in sources]
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


def run(*lessons: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, EXECUTE, *lessons], capture_output=True, text=True)


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> tuple[Path, nbformat.NotebookNode]:
    """A lesson with all kinds of outputs, run and stored."""
    path = write(
        tmp_path_factory.mktemp("lesson folder") / "lesson.ipynb",
        "import os, sys, time, pathlib\nprint(os.environ['FTLAB_CI'], os.environ['OMP_NUM_THREADS'])",
        "print(sys.prefix)",
        "print(f'{time.perf_counter():.3f} s'); print(object())",
        "import ipywidgets\nipywidgets.IntSlider(3)",
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        "pathlib.Path.cwd().name",
        "for n in range(3):\n    print(n, flush=True)\n    time.sleep(0.1)",
        kernelspec={"name": "elsewhere", "display_name": "Elsewhere"},
        widgets={"application/vnd.jupyter.widget-state+json": {"state": {}}},
        author="somebody",
    )
    ran = run(path)
    assert ran.returncode == 0, ran.stderr
    return path, nbformat.read(path, as_version=4)


def text(cell: nbformat.NotebookNode) -> str:
    return cell.outputs[0].get("text") or cell.outputs[0].data["text/plain"]


def test_the_kernel_is_this_python_as_under_test_in_the_folder_of_the_lesson(stored):
    cells = stored[1].cells
    assert text(cells[0]) == "1 1\n"
    assert text(cells[1]) == f"{sys.prefix}\n"
    assert text(cells[5]) == repr(stored[0].parent.name)


def test_outputs_are_stored_and_all_cells_counted(stored):
    cells = stored[1].cells
    assert [cell.execution_count for cell in cells] == [1, 2, 3, 4, 5, 6, 7]
    assert "image/png" in cells[4].outputs[0].data
    assert [output.text for output in cells[6].outputs] == ["0\n1\n2\n"]


def test_no_widget_state_no_times_no_foreign_metadata(stored):
    path, notebook = stored
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert [cell.metadata for cell in notebook.cells] == [{}] * 7
    assert set(notebook.cells[3].outputs[0].data) == {"text/plain"}
    assert "model_id" not in path.read_text()


def test_a_second_run_changes_nothing_although_times_and_addresses_differ(stored):
    path, before = stored[0], stored[0].read_bytes()
    assert run(path).returncode == 0
    assert path.read_bytes() == before


def test_a_changed_output_is_stored(stored, tmp_path):
    notebook = stored[1].copy()
    notebook.cells = [cell.copy() for cell in notebook.cells]
    notebook.cells[6].source = "print(5)"
    nbformat.write(notebook, tmp_path / "changed.ipynb")
    assert run(tmp_path / "changed.ipynb").returncode == 0
    assert text(nbformat.read(tmp_path / "changed.ipynb", as_version=4).cells[6]) == "5\n"


BAD = {
    "raises": ("1 / 0", "Cell 1 (1 / 0): ZeroDivisionError: division by zero"),
    "magic": ("%nosuchmagic", "Cell 1 (%nosuchmagic): "),
    "dies": ("import os; os._exit(1)", "Cell 1 (import os; os._exit(1)): Kernel died"),
    "semicolon": ("%matplotlib inline\n[1, 2];", "Cell 1 (%matplotlib inline) ends with ';'"),
    "clears": (
        "import IPython.display as d\nd.clear_output()",
        "Cell 1 (import IPython.display as d) clears its",
    ),
    "updates": ("h = display(1, display_id=2)\nh.update(3)", "Cell 1 (h = display(1, display_id=2)) updates a"),
    "captures": (
        "import ipywidgets as w\nwith w.Output():\n    print(1)",
        "Cell 1 (import ipywidgets as w) prints",
    ),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory) -> tuple[Path, dict[str, bytes], subprocess.CompletedProcess]:
    """Run all bad lessons and one good one, and keep how the files were before."""
    folder = tmp_path_factory.mktemp("bad")
    lessons = [write(folder / f"{name}.ipynb", "print('fine')", source) for name, (source, _) in BAD.items()]
    lessons.append(write(folder / "good.ipynb", "for n in [1, 2]: pass;\nprint('a;')  # ;"))
    before = {path.name: path.read_bytes() for path in lessons}
    return folder, before, run(*lessons)


@pytest.mark.parametrize("name", BAD)
def test_what_fails_or_cannot_be_compared_is_named_and_the_file_stays(refused, name):
    folder, before, ran = refused
    assert ran.returncode == 1
    assert f"{name}.ipynb: not stored. {BAD[name][1]}" in ran.stderr.replace("tests cannot compare this: ", "")
    assert (folder / f"{name}.ipynb").read_bytes() == before[f"{name}.ipynb"]


def test_the_good_lessons_are_stored_all_the_same(refused):
    folder, before, ran = refused
    assert nbformat.read(folder / "good.ipynb", as_version=4).cells[0].execution_count == 1
    assert "Traceback" not in ran.stderr
    assert {path.name for path in folder.iterdir()} == set(before)  # nothing half written


def test_a_lesson_that_does_not_exist_is_named(tmp_path):
    ran = run("99_nowhere")
    assert ran.returncode == 1
    assert "99_nowhere.ipynb: not stored. [Errno 2] No such file" in ran.stderr
