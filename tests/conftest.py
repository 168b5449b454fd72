"""The browser fixtures; what they are made of, and how to use them, is in `tests/jupyterlab.py`."""

import re

import pytest
from playwright.sync_api import expect, sync_playwright

from tests import jupyterlab

FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def browser():
    """A real Chromium; without one, browser tests fail in CI and are skipped elsewhere."""
    chromium = jupyterlab.need_chromium()
    expect.set_options(timeout=jupyterlab.PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=jupyterlab.CHROMIUM_ARGUMENTS, timeout=jupyterlab.PATIENCE * 1000
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    """A real JupyterLab server, with a token, on a free port."""
    lab = jupyterlab.Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.stop()


@pytest.fixture(scope="session")
def labpage(browser, lab):
    """One JupyterLab page for all tests of the session."""
    return jupyterlab.open_page(browser, lab)


@pytest.fixture
def notebook(lab, labpage, request):
    """A function that opens a lesson's file, or cells, in JupyterLab; the page must end without an error."""
    name = re.sub(r"\W+", "-", request.node.name).strip("-")
    with jupyterlab.watched(labpage, lab.url) as troubles:
        yield lambda content: jupyterlab.open_notebook(labpage, lab, content, name)
        if request.node.stash.get(FAILED, False):
            labpage.screenshot(path=jupyterlab.ARTEFACTS / f"failed-{name}.png")
        while_used = list(troubles)
        # A kernel that is ended while a message is under way makes JupyterLab complain, on a busy machine.
        jupyterlab.close_all(labpage)
        jupyterlab.set_theme(labpage, "light")
    assert not while_used, "\n".join(while_used)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Remember a failure, so that the page's picture is kept."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
