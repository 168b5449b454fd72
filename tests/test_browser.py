"""The browser fixtures themselves, on small notebooks, and the rule for machines without a browser."""

import os
import subprocess
import sys
import urllib.error
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect

from tests import jupyterlab

ROOT = Path(__file__).parents[1]
browser_test = pytest.mark.browser

BUTTON = """\
import ipywidgets as widgets
button, said = widgets.Button(description="Freeze"), widgets.HTML("nothing yet")
button.on_click(lambda _: setattr(said, "value", "frozen"))
widgets.VBox([button, said])"""
FIGURE = """\
import matplotlib.pyplot as plt
plt.plot([1, 2, 3])
plt.show()"""


@browser_test
def test_a_cell_shows_its_value(notebook):
    nb = notebook(["x = 6", "x * 7"])
    nb.run_all()
    expect(nb.output("x * 7")).to_contain_text("42")


@browser_test
def test_a_widget_is_played_and_a_figure_is_seen(notebook):
    nb = notebook([BUTTON, FIGURE])
    nb.run_all()
    panel = nb.output("widgets.Button")
    expect(panel).to_contain_text("nothing yet")
    panel.get_by_role("button", name="Freeze", exact=True).click()
    expect(panel).to_contain_text("frozen")
    expect(nb.output("plt.plot").locator("img")).to_be_visible()


@browser_test
def test_a_failing_cell_is_named(notebook):
    nb = notebook(["print('fine')", "1 / 0"])
    with pytest.raises(AssertionError, match="ZeroDivisionError: division by zero in the cell\n1 / 0"):
        nb.run_all()


@browser_test
def test_a_cell_that_does_not_end_is_named(notebook):
    nb = notebook(["import time; time.sleep(60)"])
    with pytest.raises(Exception, match="cells still run after 1000 ms"):
        nb.run_all(timeout=1)


@browser_test
def test_a_source_can_be_written_and_run_alone(notebook):
    nb = notebook(["def answer() -> str:\n    raise NotImplementedError", "print(answer())"])
    nb.set_source("def answer", "def answer():\n    return 'by the learner'")
    nb.run_cell("def answer")
    nb.run_cell("print(answer())")
    expect(nb.output("print(answer())")).to_contain_text("by the learner")


@browser_test
def test_a_text_in_no_cell_or_in_two_is_refused(notebook):
    nb = notebook(["a = 1", "a + 1"])
    for text, count in (("b", 0), ("a", 2)):
        with pytest.raises(AssertionError, match=f"stands in {count} cells"):
            nb.cell(text)


@browser_test
def test_a_lesson_is_opened_as_a_copy(notebook, tmp_path):
    original = tmp_path / "lesson.ipynb"
    nbformat.write(
        new_notebook(cells=[new_code_cell("6 * 7")], metadata={"kernelspec": jupyterlab.KERNEL}), original
    )
    before = original.read_bytes()
    nb = notebook(original)
    nb.run_all()
    nb.page.evaluate("async () => { await jupyterapp.commands.execute('docmanager:save'); }")
    expect(nb.output("6 * 7")).to_contain_text("42")
    assert original.read_bytes() == before


@browser_test
def test_both_themes_are_shown_and_pictures_are_kept(notebook):
    nb = notebook([BUTTON, *["print('a\\n' * 30)"] * 3])
    nb.run_all()
    background = "() => getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor"
    assert nb.page.evaluate(background) == "rgb(255, 255, 255)"
    light = nb.screenshot("browser-light")
    nb.theme("dark")
    assert nb.page.evaluate(background) != "rgb(255, 255, 255)"
    dark, part = nb.screenshot("browser-dark"), nb.screenshot("browser-part", of=nb.output("Button"))
    assert light.stat().st_size != dark.stat().st_size > part.stat().st_size


@browser_test
def test_the_kernel_is_this_python_with_one_torch_thread_and_as_a_learner_has_it(notebook):
    nb = notebook(
        ["import os, sys", "print(sys.executable, os.environ['OMP_NUM_THREADS'], 'FTLAB_CI' in os.environ)"]
    )
    nb.run_all()
    expect(nb.output("print(")).to_contain_text(f"{sys.executable} 1 False")


@browser_test
@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        ("console.error('a view is broken')", ["console: a view is broken"]),
        ("setTimeout(() => { throw new Error('in a handler') })", ["exception in the page: in a handler"]),
        # both are waited for: what comes late would be taken for a fault of the next test
        (
            "fetch('http://127.0.0.1:9/style.css').catch(() => {})",
            ["asked http://127.0.0.1:9/style.css", "console: Failed to load resource"],
        ),
    ],
    ids=["console", "exception", "request"],
)
def test_what_goes_wrong_in_the_page_is_collected(lab, labpage, script, wanted):
    with jupyterlab.watched(labpage, lab.url) as troubles:
        labpage.evaluate(f"() => {{ {script} }}")
        for _ in range(10 * jupyterlab.PATIENCE):
            if all(any(trouble in seen for seen in troubles) for trouble in wanted):
                return
            labpage.wait_for_timeout(100)  # milliseconds, in which the page's events come in
    pytest.fail(f"of {wanted} only this was collected: {troubles}")


@browser_test
def test_the_server_asks_for_its_token(lab):
    assert lab.api("status")["kernels"] >= 0
    with pytest.raises(urllib.error.HTTPError, match="403"):
        lab.api("status", token="wrong")


# Machines without a browser


def run_without_browser(**environment: str) -> subprocess.CompletedProcess:
    """Run one browser test as on a machine that has no browser."""
    test = f"{Path(__file__).relative_to(ROOT)}::test_a_cell_shows_its_value"
    plain = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-rs", "-p", "no:cacheprovider", test],
        cwd=ROOT, env=plain | {"FTLAB_CHROMIUM": "/nowhere/chromium"} | environment,
        capture_output=True, text=True,
    )  # fmt: skip


def test_in_ci_a_browser_test_that_cannot_run_is_a_failure():
    ran = run_without_browser(CI="true")
    assert ran.returncode == 1
    assert "apt-get install chromium" in ran.stdout


def test_on_a_persons_machine_it_is_skipped_with_the_package_to_install():
    ran = run_without_browser()
    assert ran.returncode == 0
    assert "1 skipped" in ran.stdout
    assert "apt-get install chromium" in ran.stdout


def test_the_variable_names_the_browser(monkeypatch):
    monkeypatch.setenv("FTLAB_CHROMIUM", sys.executable)
    assert jupyterlab.find_chromium() == sys.executable


@pytest.mark.parametrize("name", ["google-chrome", "chromium-browser", "msedge"])
def test_other_browsers_of_the_family_are_found(monkeypatch, tmp_path, name):
    monkeypatch.delenv("FTLAB_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(jupyterlab, "PLACES", [])
    assert jupyterlab.find_chromium() is None
    (tmp_path / name).touch(mode=0o755)
    assert jupyterlab.find_chromium() == str(tmp_path / name)
