"""The commands that the project promises, and that what is written about them is so."""

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)  # (language, text)
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
    for command in [*(f"make {target}" for target in TARGETS), "ftlab lab", "pip install"]:
        assert command in README


def test_the_readme_names_every_lesson():
    for lesson in (ROOT / "notebooks").glob("*.ipynb"):
        assert lesson.name in README


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

    reasons = README[README.index("## What it depends on") : README.index("## Add a lesson")]
    declared = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["test"]
    for requirement in map(Requirement, declared):
        assert re.search(rf"(?<![\w-]){requirement.name}(?![\w-])", reasons), requirement.name


def test_the_examples_in_the_readme_run_and_say_what_is_written(capsys):
    names = {}
    for language, text in BLOCKS:
        if language == "python":
            exec(text, names)
    assert names["history"].epochs == 1
    (said,) = [text for _, text in BLOCKS if text.startswith("After 1 step")]
    printed = capsys.readouterr().out
    for line in said.splitlines():
        assert line == "..." or line in printed.splitlines()


def test_the_verdict_in_the_readme_is_the_one_that_is_given():
    from ftlab.exercises.freezing import freeze_backbone

    (said,) = [text.rstrip() for _, text in BLOCKS if text.startswith("✘")]
    assert repr(freeze_backbone.judge(lambda model: model.eval() and None)).startswith(said)


def commands(start: str) -> list[list[str]]:
    """Return what follows `start` in the README's commands and code words, as a shell splits it."""
    lines = [line for language, text in BLOCKS if not language for line in text.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", README)
    found = [re.search(rf"(?:^|-m ){start} (.+)", line) for line in lines]
    return [shlex.split(one[1], comments=True) for one in found if one]


def test_make_has_every_target_that_the_readme_names():
    assert {command[0] for command in commands("make")} == set(TARGETS)


@pytest.mark.parametrize("words", commands("ftlab"), ids=" ".join)
def test_ftlab_understands_every_command_of_the_readme(words, monkeypatch):
    from ftlab import cli
    from ftlab.finetune import command

    understood = []
    for module, names in ((cli, ("_lab", "_lessons", "_fetch", "_doctor")), (command, ("_finetune", "_predict"))):
        for name in names:
            monkeypatch.setattr(module, name, lambda args: understood.append(args) or 0)
    assert cli.main(words) == 0
    assert understood
    with pytest.raises(SystemExit):
        cli.main([words[0] + "s", *words[1:]])


def test_every_link_of_the_readme_leads_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_names_only_what_the_modules_have():
    from importlib import import_module

    rows = re.findall(r"^\| `ftlab\.(\w+)`(?:, `ftlab\.\w+`)? \| (.*) \|$", README, flags=re.MULTILINE)
    assert len(rows) > 12
    for module, text in rows:
        for name in re.findall(r"`(\w+)`", text):
            assert hasattr(import_module(f"ftlab.{module}"), name), f"{module}.{name}"
