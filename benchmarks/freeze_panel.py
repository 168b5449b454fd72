"""How long does FreezePanel on ResNet-50 take from a click to the changed picture, in a real browser?

    python benchmarks/freeze_panel.py

The clock starts in the page with the click and stops in the first frame that shows the row's new state. The
kernel and the browser share the cores of this machine.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))  # the browser tools are those of the tests

from ftlab.table import Table
from tests import jupyterlab

CLICKS = 50
CELLS = [
    "import torchvision",
    "from ftlab.widgets.freezing import FreezePanel",
    "FreezePanel(torchvision.models.resnet50())",
]
BLOCKS = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]

# Resolves with the milliseconds between the click and the first frame drawn after the row has changed.
CLICK = """(path) => new Promise((done) => {
  const row = document.querySelector(`.ftlab-row[data-path="${path}"]`);
  const start = performance.now();
  new MutationObserver((_, observer) => {
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
  }).observe(row, { attributes: true, attributeFilter: ['aria-checked'] });
  row.click();
})"""


def measure(page, pause: float) -> list[float]:
    """Click the blocks in turn and return the milliseconds of each click."""
    times = []
    for number in range(CLICKS):
        times.append(page.evaluate(CLICK, BLOCKS[number % len(BLOCKS)]))
        page.wait_for_timeout(1000 * pause)
    return times


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        lab = jupyterlab.Lab(Path(folder))
        browser = playwright.chromium.launch(
            executable_path=jupyterlab.need_chromium(), args=jupyterlab.CHROMIUM_ARGUMENTS
        )
        try:
            page = jupyterlab.open_page(browser, lab)
            notebook = jupyterlab.open_notebook(page, lab, CELLS, "freeze-panel")
            notebook.run_all()
            page.wait_for_timeout(3000)
            times = {pause: measure(page, pause) for pause in (0, 0.5, 2)}
        finally:
            browser.close()
            lab.stop()
    rows = [
        [pause, statistics.median(values), statistics.quantiles(values, n=10)[-1], max(values)]
        for pause, values in times.items()
    ]
    headers = ["seconds between clicks", "median (ms)", "90 % below (ms)", "slowest (ms)"]
    print(Table(headers, rows, title=f"FreezePanel on ResNet-50, click to picture, {CLICKS} clicks each"))


if __name__ == "__main__":
    main()
