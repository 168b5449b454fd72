import subprocess
import sys

import pytest

import ftlab

JUPYTER = {"IPython", "ipykernel", "ipywidgets", "anywidget", "jupyterlab", "comm"}
HEAVY = JUPYTER | {"torch", "torchvision", "matplotlib", "numpy"}


def loaded_by(code: str) -> set[str]:
    """Return which heavy packages are loaded after `code` ran in a fresh process."""
    report = f"import sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


@pytest.mark.parametrize(
    "code",
    ["import ftlab", "import ftlab; dir(ftlab); ftlab.__version__", "import ftlab.cli", "import ftlab.paths"],
)
def test_ftlab_itself_loads_nothing_heavy(code):
    assert loaded_by(code) == set()


def test_pretrained_loads_torch_when_it_is_touched():
    assert loaded_by("import ftlab; ftlab.pretrained") >= {"torch", "torchvision"}


def test_logic_and_exercises_load_nothing_of_jupyter_and_no_plot_library():
    topics = set(dir(ftlab)) - {"__version__", "plots", "widgets"}
    loaded = loaded_by(f"import ftlab, ftlab.exercises.core\nfor name in {topics}: getattr(ftlab, name)")
    assert "torch" in loaded
    assert not loaded & (JUPYTER | {"matplotlib"})


def test_pictures_load_the_plot_library_but_nothing_of_jupyter():
    loaded = loaded_by("import ftlab; ftlab.plots")
    assert "matplotlib" in loaded
    assert not loaded & JUPYTER


def test_panels_load_ipywidgets():
    assert "ipywidgets" in loaded_by("import ftlab.widgets.panel")


def test_a_name_that_is_no_topic_is_answered_with_the_topics():
    with pytest.raises(AttributeError, match="ftlab has no 'freezer'; it has capstone, checkpoints, data"):
        ftlab.freezer  # noqa: B018


@pytest.mark.parametrize("package", ["checkpoints", "finetune"])
def test_each_name_of_a_lazy_package_is_found_where_it_is_said_to_be(package):
    module = getattr(ftlab, package)
    assert dir(module) == module.__all__ == [name for name in module.__all__ if hasattr(module, name)]
    with pytest.raises(AttributeError, match=f"ftlab.{package} has no 'sav'; it has "):
        module.sav  # noqa: B018
