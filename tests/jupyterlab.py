"""A real JupyterLab in a real browser, for tests that play the learner.

`tests/conftest.py` makes these fixtures of it: `lab` (the server) and `labpage` (one page), once per session,
and `notebook`, which opens a lesson, or cells written by the test, in that page:

    def test_the_panel_says_what_it_froze(notebook):
        nb = notebook(paths.LESSONS / "05_freezing.ipynb")
        nb.run_all()
        panel = nb.output("FreezePanel(model)")
        panel.get_by_role("button", name="Freeze", exact=True).click()
        expect(panel).to_contain_text("12 of 18 blocks frozen")
        nb.screenshot("freeze-panel")

When the test ends, the page must not have logged an error, and must have asked no other machine for anything.
Selectors that hold: a role with its exact name, a class of your own (`widget.add_class`), `.noUi-handle` for
the handle of a slider (`handle.press("ArrowRight")`).
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from tests.ports import free_port

PATIENCE = 300  # seconds for what takes one: a machine may be slow, and its cores busy with other tests
ARTEFACTS = Path(__file__).parents[1] / "artefacts"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
NAMES = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
    "microsoft-edge",
]
PLACES = [
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
]
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
]
INSTALL = (
    "install one (Debian: apt-get install chromium; Ubuntu: snap install chromium; macOS: brew install "
    "--cask chromium; Windows: Microsoft Edge is there already), or name it in FTLAB_CHROMIUM"
)


def find_chromium() -> str | None:
    """Return the path of a Chromium, Chrome or Edge; the variable FTLAB_CHROMIUM overrules the search."""
    if named := os.environ.get("FTLAB_CHROMIUM"):
        return shutil.which(named)
    found = filter(None, map(shutil.which, NAMES))
    return next(found, None) or next(filter(os.path.isfile, PLACES), None)


def need_chromium() -> str:
    """Return the path of a Chromium; without one the test fails in CI, and is skipped on a person's machine."""
    if path := find_chromium():
        return path
    reason = f"no Chromium for the browser tests: {INSTALL}"
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"{reason}. In CI every test must run.", pytrace=False)
    pytest.skip(reason)


class Server:
    """A Jupyter server that was started by `command`, with its own token, on its own port."""

    def __init__(self, command: list[str], folder: Path, **environment: str) -> None:
        self.token, self.port = secrets.token_hex(16), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        arguments = ["--no-browser", f"--port={self.port}", "--ServerApp.port_retries=0"]
        arguments += [f"--IdentityProvider.token={self.token}", *(["--allow-root"] if _is_root() else [])]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *arguments], cwd=folder, env=_clean_environment(folder) | environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log.read_text()}")
            try:
                self.api("status")
            except OSError:
                if time.monotonic() > end:
                    self.stop()
                    raise
                time.sleep(0.1)
            else:
                return

    def api(self, path: str, token: str | None = None) -> dict:
        """Ask the server's REST interface, with its own token if no other is given."""
        request = urllib.request.Request(f"{self.url}/api/{path}")
        request.add_header("Authorization", f"token {self.token if token is None else token}")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def stop(self) -> None:
        """End the server and its kernels."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _clean_environment(folder: Path) -> dict[str, str]:
    """Return this environment, as a learner has it, and away from the person's own Jupyter settings."""
    environment = {name: value for name, value in os.environ.items() if name != "FTLAB_CI"}  # checks only display
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        environment[variable] = str(folder / variable.lower())
    for variable in ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"):
        environment[variable] = str(folder / variable.lower())
    return environment


SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "docmanager-extension/plugin": {"autosave": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # every output is in the page, seen or not
}


class Lab(Server):
    """A JupyterLab server for the browser; `root` is the folder that it shows."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        for name, values in SETTINGS.items():
            file = folder / "jupyterlab_settings_dir" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        super().__init__([
            sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={self.root}",
            "--LabApp.expose_app_in_browser=True",  # its commands are run: menu clicks get lost
            "--LabApp.extension_manager=readonly", "--LanguageServerManager.autodetect=False",
        ], folder)  # fmt: skip


class Notebook:
    """A notebook that is open in the page."""

    def __init__(self, page: Page, name: str) -> None:
        self.page, self.name = page, name
        self.panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")

    def open(self) -> None:
        """Open it in JupyterLab and wait for its kernel."""
        self._play("open")

    def run_all(self, timeout: float = 3 * PATIENCE) -> None:
        """Run all cells as JupyterLab's menu does, and wait for them; a cell that fails is named."""
        self._play("runAll", timeout * 1000)
        failed = self._play("failures")
        assert not failed, f"{self.name}: {failed[0]}"
        expect(self.panel.get_by_text("Loading widget...")).to_have_count(0)
        expect(self.panel.get_by_text("Error displaying widget")).to_have_count(0)

    def run_cell(self, text: str) -> None:
        """Run the one cell in whose source `text` stands, and wait for it; it may fail."""
        self._play("runCell", self._number(text))

    def start_cell(self, text: str) -> None:
        """Run a cell without waiting, to do something in the page while it works."""
        self.page.evaluate(
            "([path, number]) => { player.runCell(path, number); }", [self.name, self._number(text)]
        )

    def set_source(self, text: str, source: str) -> None:
        """Write another source into the one cell in whose source `text` stands."""
        self._play("setSource", self._number(text), source)

    def cell(self, text: str) -> Locator:
        """Return the one cell in whose source `text` stands."""
        return self.panel.locator(".jp-Notebook-cell").nth(self._number(text))

    def output(self, text: str) -> Locator:
        """Return what the one cell in whose source `text` stands shows."""
        return self.cell(text).locator(".jp-Cell-outputArea")

    def _number(self, text: str) -> int:
        found = [number for number, source in enumerate(self._play("sources")) if text in source]
        assert len(found) == 1, f"{text!r} stands in {len(found)} cells of {self.name}, not in one"
        return found[0]

    def _play(self, action: str, *arguments):
        return self.page.evaluate(f"(given) => player.{action}(...given)", [self.name, *arguments])

    def theme(self, name: str) -> None:
        """Switch JupyterLab to the light or the dark theme."""
        set_theme(self.page, name)

    def screenshot(self, name: str, of: Locator | None = None) -> Path:
        """Keep a picture of the whole notebook, or of a part, as `artefacts/<name>.png`."""
        path = ARTEFACTS / f"{name}.png"
        if of is not None:
            of.screenshot(path=path)
            return path
        size = self.page.viewport_size
        self.page.set_viewport_size({"width": size["width"], "height": self._play("height")})
        self.page.screenshot(path=path)
        self.page.set_viewport_size(size)
        return path


def open_page(browser, lab: Lab) -> Page:
    """Open JupyterLab in a page and wait until it is ready."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(PATIENCE * 1000)
    page.add_init_script(path=Path(__file__).with_suffix(".js"))
    page.goto(f"{lab.url}/lab?token={lab.token}&reset")
    page.wait_for_function("() => window.jupyterapp?.shell", timeout=PATIENCE * 1000)
    page.evaluate("async () => { await jupyterapp.restored; jupyterapp.shell.collapseLeft(); }")
    return page


def open_notebook(page: Page, lab: Lab, content: Path | Iterable[str], name: str) -> Notebook:
    """Open a copy of a notebook's file, or a new notebook with these code cells, and wait for its kernel."""
    name = f"{name}-{secrets.token_hex(3)}.ipynb"
    if isinstance(content, Path):
        shutil.copyfile(content, lab.root / name)
    else:
        cells = [new_code_cell(source) for source in content]
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), lab.root / name)
    notebook = Notebook(page, name)
    notebook.open()
    return notebook


def close_all(page: Page) -> None:
    """Close what is open, without saving, and end the kernels."""
    page.evaluate("() => player.closeAll()")


def set_theme(page: Page, name: str) -> None:
    """Switch JupyterLab to the light or the dark theme, and wait for it."""
    page.evaluate("(theme) => player.setTheme(theme)", THEMES[name])
    light = str(name == "light").lower()
    page.wait_for_function("(light) => document.body.dataset.jpThemeLight === light", arg=light)
    page.locator("#jupyterlab-splash").wait_for(state="detached")


@contextlib.contextmanager
def watched(page: Page, home: str):
    """Collect what goes wrong in the page: errors, and requests to another machine than `home`."""
    troubles: list[str] = []
    listeners = {
        "pageerror": lambda error: troubles.append(f"exception in the page: {error}"),
        "console": lambda said: (
            troubles.append(f"console: {said.text} {said.location}") if _is_error(said) else None
        ),
        "request": lambda asked: troubles.append(f"asked {asked.url}") if _is_foreign(asked.url, home) else None,
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    yield troubles
    for event, listener in listeners.items():
        page.remove_listener(event, listener)


def _is_error(said: ConsoleMessage) -> bool:
    # JupyterLab's debugger still asks a kernel that the end of a short test has closed.
    return said.type == "error" and not said.text.startswith("Could not restore the debugger state")


def _is_foreign(url: str, home: str) -> bool:
    return not url.startswith((home, home.replace("http", "ws"), "data:", "blob:"))
