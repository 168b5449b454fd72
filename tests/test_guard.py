"""Real notebooks, broken in the ways that nbval alone passes, each with a good partner, run by a real pytest."""

import os
import re
import shutil
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import nbformat
import pytest
from jupyter_client.connect import LocalPortCache
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests import guard, ports

ROOT = Path(__file__).parents[1]
ASSIGNED = Path("/proc/sys/net/ipv4/ip_local_port_range")
COLOUR = re.compile(r"#x1B\[[\d;]*m")  # as junit's XML writes a terminal's escape


class Cell(NamedTuple):
    """A code cell as it is stored."""

    source: str
    stdout: str = ""
    stderr: str = ""
    was_run: bool = True


class Pair(NamedTuple):
    """A notebook that must be refused, what the refusal says, and the nearest notebook that must pass."""

    bad: list[Cell]
    says: str
    good: list[Cell]


NO_LINE_MAGIC = "UsageError: Line magic function `%nosuchmagic` not found.\n"
NO_CELL_MAGIC = "UsageError: Cell magic `%%nosuchmagic` not found.\n"
CHECK = """\
# NBVAL_IGNORE_OUTPUT
from ftlab.exercises import freezing
def freeze_backbone(model):
    {}
freezing.freeze_backbone.check(freeze_backbone)
"""
THREAD = """\
# NBVAL_IGNORE_OUTPUT
import threading, time
def work():
    time.sleep(0.3)
    return 1 / {number}
worker = threading.Thread(target=work, daemon=True)
worker.start()
"""
TQDM = "from tqdm import tqdm\nfor step in tqdm(range(3)): pass"
WARNING = "import warnings; warnings.warn('careful')"
VENV = "import sys; assert sys.prefix == {prefix!r}, sys.prefix"
ONE_THREAD = "import torch; assert torch.get_num_threads() == {count}, torch.get_num_threads()"

PAIRS = {
    "line_magic": Pair(
        bad=[Cell("%nosuchmagic", stderr=NO_LINE_MAGIC)],
        says="UsageError: Line magic function `%nosuchmagic` not found",
        good=[Cell("%matplotlib inline")],
    ),
    "line_magic_hides_the_rest": Pair(
        bad=[Cell("%nosuchmagic\nraise ValueError", stderr=NO_LINE_MAGIC)],
        says="UsageError",
        good=[Cell("%matplotlib inline\nprint('reached')", stdout="reached\n")],
    ),
    "cell_magic": Pair(
        bad=[Cell("%%nosuchmagic\n1/0", stderr=NO_CELL_MAGIC)],
        says="UsageError: Cell magic `%%nosuchmagic` not found",
        good=[Cell("%%capture shown\nprint('hidden')")],
    ),
    "shell_fails": Pair(
        bad=[Cell("!exit 3")],
        says="runs no shell commands, here: 'exit 3'",
        good=[Cell("print('exit!')", stdout="exit!\n")],
    ),
    "shell_is_captured": Pair(
        bad=[Cell("files = !nosuchcommand")],
        says="runs no shell commands, here: 'nosuchcommand'",
        good=[Cell("import subprocess, sys\ndone = subprocess.run([sys.executable, '-c', ''], check=True)")],
    ),
    "thread_after_the_last_cell": Pair(
        bad=[Cell(THREAD.format(number=0))],
        says="ZeroDivisionError: division by zero (in thread 'Thread-",
        good=[Cell(THREAD.format(number=1))],
    ),
    "thread_in_an_early_cell": Pair(
        bad=[Cell(THREAD.format(number=0) + "worker.join()"), Cell("a = 1")],
        says="ZeroDivisionError",
        good=[Cell(THREAD.format(number=1) + "worker.join()"), Cell("a = 1")],
    ),
    "never_run": Pair(
        bad=[Cell("print('never compared')", was_run=False)],
        says="stored without having been run",
        good=[Cell("print('compared')", stdout="compared\n")],
    ),
    "check_only_displays": Pair(
        bad=[Cell(CHECK.format("model.eval()"))],
        says="CheckFailed",
        good=[Cell(CHECK.format("model.requires_grad_(False); model.fc.requires_grad_(True)"))],
    ),
    "kernel_dies": Pair(
        bad=[Cell("import os; os._exit(1)")],
        says="the kernel died",
        good=[Cell("import os; os.getpid() and None")],
    ),
    "exception": Pair(  # nbval sees this one; the later cells are what it passes
        bad=[Cell("value = 1 / 0"), Cell("later = 1"), Cell("still_later = 2")],
        says="ZeroDivisionError",
        good=[Cell("value = 1 / 1"), Cell("later = 1"), Cell("still_later = 2")],
    ),
    "output_differs": Pair(
        bad=[Cell("print(1 + 1)", stdout="3\n"), Cell("later = 1")],
        says="Cell outputs differ",
        good=[Cell("print(1 + 1)", stdout="2\n"), Cell("later = 1")],
    ),
    "environment": Pair(
        bad=[Cell(VENV.format(prefix="/usr"))],
        says="AssertionError",
        good=[Cell(VENV.format(prefix=sys.prefix))],
    ),
    "torch_threads": Pair(
        bad=[Cell(ONE_THREAD.format(count=2))],
        says="AssertionError: 1",
        good=[Cell(ONE_THREAD.format(count=1))],
    ),
    "address": Pair(
        bad=[Cell("print(object(), 1)", stdout="<object object at 0x7f00> 2\n")],
        says="Cell outputs differ",
        good=[Cell("print(object(), 1)", stdout="<object object at 0x7f00> 1\n")],
    ),
    "measured_time": Pair(
        bad=[Cell("import time\nprint(f'3 steps in {time.perf_counter():.2f} s')", stdout="4 steps in 0.12 s\n")],
        says="Cell outputs differ",
        good=[
            Cell("import time\nprint(f'3 steps in {time.perf_counter():.2f} s')", stdout="3 steps in 0.12 s\n")
        ],
    ),
    "tqdm_bar": Pair(
        bad=[Cell(TQDM, stderr="100%|###| 4/4 [00:01<00:00, 3.21it/s]\n")],
        says="Cell outputs differ",
        good=[Cell(TQDM, stderr="100%|###| 3/3 [00:01<00:00, 3.21it/s]\n")],
    ),
    "warning": Pair(
        bad=[Cell(WARNING, stderr="/tmp/ipykernel_1/2.py:1: UserWarning: other\n  " + WARNING + "\n")],
        says="Cell outputs differ",
        good=[Cell(WARNING, stderr="/tmp/ipykernel_1/2.py:1: UserWarning: careful\n  " + WARNING + "\n")],
    ),
    "accuracy_is_no_time": Pair(
        bad=[Cell("print('accuracy 0.81, 7.5 samples')", stdout="accuracy 0.82, 7.6 samples\n")],
        says="Cell outputs differ",
        good=[Cell("print('accuracy 0.81, 7.5 samples')", stdout="accuracy 0.81, 7.5 samples\n")],
    ),
}


def write_notebook(path: Path, cells: list[Cell]) -> None:
    """Write a notebook as if it had been run; its kernel's name exists nowhere, as on another machine."""
    notebook = new_notebook(metadata={"kernelspec": {"name": "elsewhere", "display_name": "Elsewhere"}})
    notebook.cells = [new_markdown_cell("# A lesson")]
    for number, cell in enumerate(cells, 1):
        shown = []
        for name, text in (("stdout", cell.stdout), ("stderr", cell.stderr)):
            if text:
                shown.append(new_output("stream", name=name, text=text))
        count = number if cell.was_run else None
        notebook.cells.append(new_code_cell(cell.source, outputs=shown, execution_count=count))
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)


def copy_project(folder: Path) -> Path:
    """Copy what makes pytest behave as it does here."""
    for name in (
        "pyproject.toml",
        "conftest.py",
        "tests/__init__.py",
        "tests/guard.py",
        "tests/ports.py",
        "tests/nbval_sanitize.cfg",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def run_pytest(
    project: Path, *arguments: str, command=(sys.executable, "-m", "pytest", "-n0")
) -> subprocess.CompletedProcess:
    """Run the project's pytest as a person would, without what this test run put into the environment."""
    ours = ("PYTEST_", "OMP_NUM_THREADS", "FTLAB_CI", "COV_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [*command, "--junitxml=result.xml", "-p", "no:cacheprovider", *arguments],
        cwd=project, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=3000,
    )  # fmt: skip


class Verdict(NamedTuple):
    """What became of one cell."""

    outcome: str
    text: str
    seconds: float


def verdicts(project: Path) -> dict[str, list[Verdict]]:
    """Return the verdicts on the cells of each notebook, by the notebook's name."""
    found: dict[str, list[Verdict]] = {}
    for case in ElementTree.parse(project / "result.xml").iter("testcase"):
        notebook = case.get("classname").removesuffix(".ipynb").rpartition(".")[2]
        said = next((child for child in case if child.tag in {"failure", "error", "skipped"}), None)
        outcome, text = ("passed", "") if said is None else (said.tag, COLOUR.sub("", said.text or ""))
        found.setdefault(notebook, []).append(Verdict(outcome, text, float(case.get("time"))))
    return found


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> dict[str, list[Verdict]]:
    """Run all pairs in one go."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    for name, pair in PAIRS.items():
        write_notebook(project / f"notebooks/{name}_bad.ipynb", pair.bad)
        write_notebook(project / f"notebooks/{name}_good.ipynb", pair.good)
    done = run_pytest(project, "notebooks")
    assert done.returncode == 1, done.stdout + done.stderr
    return verdicts(project)


@pytest.mark.parametrize("name", PAIRS)
def test_the_broken_notebook_is_refused_with_the_reason(judged, name):
    first, *later = judged[f"{name}_bad"]
    assert first.outcome == "failure"
    assert PAIRS[name].says in first.text
    assert [cell.outcome for cell in later] == ["skipped"] * (len(PAIRS[name].bad) - 1)


@pytest.mark.parametrize("name", PAIRS)
def test_the_good_partner_passes(judged, name):
    assert [cell.outcome for cell in judged[f"{name}_good"]] == ["passed"] * len(PAIRS[name].good), judged[
        f"{name}_good"
    ]


def test_a_dead_kernel_is_noticed_long_before_the_cell_timeout_of_ten_minutes(judged):
    assert judged["kernel_dies_bad"][0].seconds < 300


def test_cells_after_a_failure_name_the_cell_that_failed(judged):
    assert "Cell 0 of this notebook failed before" in judged["exception_bad"][1].text


PYTEST = str(Path(sys.executable).with_name("pytest"))


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "pytest", "-n0", "notebooks/bad.ipynb"],
        [PYTEST, "-n0", "../project/notebooks/bad.ipynb"],
        [PYTEST],  # two workers, all of testpaths
    ],
    ids=["python -m pytest FILE", "pytest FILE", "pytest"],
)
def test_however_pytest_is_started_the_guard_is_there(tmp_path, command):
    project = copy_project(tmp_path / "project")
    (project / "ftlab").mkdir()
    write_notebook(project / "notebooks/bad.ipynb", PAIRS["line_magic"].bad)
    write_notebook(project / "notebooks/good.ipynb", PAIRS["line_magic"].good)
    done = run_pytest(project, command=command)
    assert done.returncode == 1, done.stdout + done.stderr
    assert verdicts(project)["bad"][0].outcome == "failure"


def test_a_kernel_may_be_slow_to_answer_and_to_show(monkeypatch):
    asked = []
    monkeypatch.setattr(
        guard.RunningKernel, "await_reply", lambda kernel, message, timeout: asked.append(timeout)
    )
    kernel = object.__new__(guard.GuardedKernel)
    for timeout in (10, 600, None):
        kernel.await_reply("message", timeout=timeout)
    assert asked == [guard.PATIENCE, 600, None]


def test_an_output_may_come_long_after_the_end_of_its_cell():
    cell = object.__new__(guard.IPyNbCell)
    cell.parent, cell.output_timeout = SimpleNamespace(), 5
    guard.pytest_collection_modifyitems([cell])
    assert cell.output_timeout == guard.PATIENCE


@pytest.mark.skipif(not ASSIGNED.exists(), reason="this system does not tell which ports it assigns")
def test_a_kernel_gets_ports_that_the_system_gives_to_nobody_by_chance():
    assigned = range(*map(int, ASSIGNED.read_text().split()))
    found = [LocalPortCache.instance().find_available_port("127.0.0.1") for _ in range(10)]
    assert len(set(found)) == 10
    assert not set(found) & set(assigned)


def test_a_port_that_somebody_listens_on_is_passed_over():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", ports.free_port()))
        listener.listen()
        taken = listener.getsockname()[1]
        assert not ports.is_free(taken)
        assert taken not in {ports.free_port() for _ in range(ports.EACH)}
    assert ports.is_free(taken)


def test_a_notebook_stays_whole_on_one_of_two_workers(tmp_path):
    project = copy_project(tmp_path / "project")
    for name in ("one", "two", "three"):
        cells = [Cell("value = 0"), *[Cell("value += 1; print(value)", f"{n}\n") for n in range(1, 9)]]
        write_notebook(project / f"notebooks/{name}.ipynb", cells)
    done = run_pytest(project, "notebooks", "-n2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [len(cells) for cells in verdicts(project).values()] == [9, 9, 9]
