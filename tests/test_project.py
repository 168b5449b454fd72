"""The commands that the project promises, and that what is written about them is so."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = ["lab", "test", "lint", "notebooks", "bench"]

needs_make = pytest.mark.skipif(
    os.name == "nt", reason="Windows has no make; the README has the lines without it"
)


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run make as a person does, although make may have started these tests and left its arguments."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def dry_run(target: str, *arguments: str) -> str:
    """Return what make would run, all of it, also what is up to date."""
    ran = make("--dry-run", "--always-make", target, *arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@needs_make
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_sets_up_the_environment_first(target):
    ran = dry_run(target)
    setup = ran.index("pip install")
    assert "--constraint constraints.txt --editable '.[test]'" in ran
    work = {
        "lab": "-m jupyterlab",
        "test": "-m pytest",
        "lint": "ruff check",
        "notebooks": "notebooks/execute.py",
        "bench": "benchmarks/fine_tuning.py",
    }
    assert setup < ran.index(work[target])


@needs_make
@pytest.mark.parametrize("target", ["lab", "test", "notebooks", "bench"])
def test_arguments_are_passed_on(target):
    assert dry_run(target, "ARGS=--one --two 2").rstrip().endswith("--one --two 2")


@needs_make
def test_an_old_python_is_refused_with_the_next_step(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    ran = make("lab", f"PYTHON={old}", cwd=tmp_path)
    assert ran.returncode != 0
    assert "ftlab needs Python 3.11 or newer" in ran.stdout
    assert "Python 3.9.2. Try: make PYTHON=python3.12 lab" in ran.stdout


def test_the_readme_names_every_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in [*(f"make {target}" for target in TARGETS), "ftlab lab", "pip install"]:
        assert command in readme


def test_the_readme_names_every_lesson():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for lesson in (ROOT / "notebooks").glob("*.ipynb"):
        assert lesson.name in readme


def test_every_dependency_is_pinned_for_ci_and_the_pin_is_in_the_range():
    from packaging.requirements import Requirement

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line)
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    declared = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["test"]
    for requirement in map(Requirement, declared):
        assert requirement.specifier.contains(pins[re.sub(r"[-_.]+", "-", requirement.name).lower()])


def test_the_version_is_written_the_same_everywhere():
    import ftlab

    assert PROJECT["project"]["version"] == ftlab.__version__


def test_ci_runs_make_test_and_nothing_hidden():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    assert script.read_text().rstrip().endswith("make test")


def test_the_readme_says_why_each_dependency_is_there():
    from packaging.requirements import Requirement

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    reasons = readme[readme.index("## What it depends on") : readme.index("## Add a lesson")]
    declared = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["test"]
    for requirement in map(Requirement, declared):
        assert re.search(rf"(?<![\w-]){requirement.name}(?![\w-])", reasons), requirement.name


def test_the_example_in_the_readme_runs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    names = {}
    exec(example, names)
    assert names["history"].epochs == 1
