"""The lesson on pretrained models as a learner has it: opened in JupyterLab, run, and played."""

import io
import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from ftlab import paths

pytestmark = pytest.mark.browser


def test_pretrained_is_played_by_a_learner(notebook):
    nb = notebook(paths.LESSONS / "01_pretrained.ipynb")
    nb.run_all()

    # choose a preparation by keyboard, read what changed
    panel = nb.output("panel = PreprocessingPanel")
    line, picture = panel.get_by_role("status").first, panel.get_by_role("img")
    expect(line).to_contain_text("cat, efficientnet_lite0: with the right preprocessing")
    expect(line).to_contain_text('with "another normalisation"')
    preparation = panel.get_by_label("preparation")
    preparation.focus()
    preparation.press("ArrowDown")
    expect(line).to_contain_text('with "no normalisation"')
    preparation.select_option("0 to 255")
    expect(line).to_contain_text('with "0 to 255"')
    expect(picture).to_have_attribute("alt", re.compile("0 to 255, 224 × 224"))
    nb.screenshot("pretrained-panel", of=panel)

    # a picture of one's own
    file = io.BytesIO()
    Image.new("RGB", (80, 60), "orange").save(file, "PNG")
    with nb.page.expect_file_chooser() as chooser:
        panel.get_by_role("button", name="Your own picture").click()
    chooser.value.set_files({"name": "orange.png", "mimeType": "image/png", "buffer": file.getvalue()})
    expect(line).to_contain_text("orange.png, efficientnet_lite0")
    panel.get_by_label("picture", exact=True).select_option("rocket")
    panel.get_by_role("button", name="Show the code").click()
    expect(panel).to_contain_text("prepare = weights.transforms(mean=(0.0,) * 3, std=(1 / 255,) * 3)")
    nb.screenshot("pretrained-panel-code", of=panel)

    # a wrong answer is named, a right one passes
    task, check = "def what_is_loaded", "what_is_loaded.check"
    answer = {"a": "V2", "b": "random", "c": "V2", "d": "V1", "e": "error", "f": "error"}
    nb.set_source(task, f"def what_is_loaded():\n    return {answer}")
    nb.run_cell(task)
    nb.run_cell(check)
    expect(nb.output(check)).to_contain_text('You said "V2" for a, and that is not what it does.')
    nb.screenshot("pretrained-exercise-wrong", of=nb.output(check))
    nb.set_source(task, f"def what_is_loaded():\n    return {answer | {'a': 'random'}}")
    nb.run_cell(task)
    nb.run_cell(check)
    expect(nb.output(check)).to_contain_text("passed")
    nb.screenshot("pretrained")
    nb.theme("dark")
    nb.screenshot("pretrained-panel-dark", of=panel)
    nb.screenshot("pretrained-dark")
