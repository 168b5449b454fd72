"""The panel of the lesson on checkpoints: a file, a model, and what stands between them."""

import tempfile
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

import ipywidgets as w
from torch import nn

from ftlab import pretrained
from ftlab.checkpoints.diagnosing import diagnose
from ftlab.checkpoints.diagnosis import Diagnosis
from ftlab.checkpoints.exhibits.exhibit import Exhibit, Museum
from ftlab.checkpoints.exhibits.room import museum as make_museum
from ftlab.checkpoints.receipt import LoadReceipt
from ftlab.random_state import keep_random_state
from ftlab.widgets.checkpoints.views import findings_html, keys_html, receipt_html
from ftlab.widgets.panel import Panel

MEANT = "the one that it is meant for"
NETWORKS = ("efficientnet_lite0", "resnet18", "resnet50", "mobilenet_v3_large")


class Upload(w.FileUpload):
    """A button that takes a file of the learner's; in a stored output it is nothing."""

    def to_html(self) -> str:
        """Return nothing: whose file it was is nobody's business."""
        return ""


class CheckpointPanel(Panel):
    """Choose a file and a model; see the names side by side, what is wrong, and the code that mends it.

    Nothing in a file is ever run. The model is a new one with random parameters, unless you hand over your own
    through `models`; only **Apply the fix** changes it.

    Args:
        museum: Whose files can be chosen; a new one in a temporary folder if None.
        models: Your own models by name, each a function that makes one: `{"mine": lambda: my_model}`.

    Attributes:
        model: The model that was chosen.
        diagnosis: What was found.
        receipt: What the fix has changed; None before it was applied.

    Example:
        >>> panel = CheckpointPanel()
        >>> panel.file.value = "parallel"
        >>> panel
        parallel.pth: prefix. The fix loads 22 of the model's 22 tensors
        >>> panel.apply.click()
        >>> panel
        parallel.pth: prefix. The fix was applied: 22 of 22 tensors loaded, 97.0 % of the numbers changed
    """

    title = "The checkpoint doctor"

    def __init__(
        self, museum: Museum | None = None, models: Mapping[str, Callable[[], nn.Module]] | None = None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ftlab-")
        self.museum = museum or make_museum(Path(self._folder.name, "museum"))
        self._files: dict[str, Path | Exhibit] = {one.name: one for one in self.museum}
        self._models = {**(models or {}), **{name: _builder(name) for name in NETWORKS}}
        self.receipt: LoadReceipt | None = None
        self.built: nn.Module | None = None  # by a fix that takes another model
        wide = {"layout": {"width": "420px"}, "style": {"description_width": "90px"}}
        self.file = w.Dropdown(options=list(self._files), value="parallel", description="file", **wide)
        self.network = w.Dropdown(options=[MEANT, *self._models], description="model", **wide)
        self.upload = Upload(multiple=False, description="Your own file")
        self.upload.layout.width = "200px"
        self.path = w.Text(description="or its path", placeholder="best.pt", continuous_update=False, **wide)
        self.apply = w.Button(description="Apply the fix", icon="medkit")
        self.story, self.keys, self.findings, self.done = w.HTML(), w.HTML(), w.HTML(), w.HTML()
        self._examine()
        super().__init__(
            w.HBox([self.file, self.upload]),
            w.HBox([self.network, self.path]),
            self.story,
            self.findings,
            self.apply,
            self.done,
            self.keys,
        )
        for control in (self.file, self.network):
            self.on(control, self._examine)
        self.on(self.upload, self._uploaded)
        self.on(self.path, self._typed)
        self.on(self.apply, self._apply)

    @property
    def exhibit(self) -> Exhibit | None:
        """The piece of the museum that was chosen; None if it is a file of your own."""
        chosen = self._files[self.file.value]
        return chosen if isinstance(chosen, Exhibit) else None

    @property
    def chosen_path(self) -> Path:
        """The file that was chosen."""
        return getattr(self._files[self.file.value], "path", self._files[self.file.value])

    def _examine(self) -> None:
        """Make the model and look for what stands in the way; nothing of the old file is left if that fails."""
        self.receipt, self.built = None, None
        self.diagnosis: Diagnosis | None = None
        with keep_random_state():
            self.model = self._make()
        self.diagnosis = diagnose(self.chosen_path, self.model)

    def _make(self) -> nn.Module:
        if self.network.value != MEANT:
            return self._models[self.network.value]()
        return self.exhibit.model() if self.exhibit else next(iter(self._models.values()))()

    def _apply(self) -> None:
        if self.diagnosis is None:
            raise ValueError("there is no diagnosis yet; choose a file and a model first")
        if self.diagnosis.state:
            self.receipt = self.diagnosis.apply(at_least=0.0)
            return
        names = {"model": self.model}  # the file is another network's: the fix builds that one
        with keep_random_state():
            exec(self.diagnosis.fix, names)
        self.model = self.built = names["model"]

    def _uploaded(self) -> None:
        for file in self.upload.value:
            path = Path(self._folder.name, Path(file["name"]).name)
            path.write_bytes(bytes(file["content"]))
            self._take(path)

    def _typed(self) -> None:
        if not self.path.value.strip():
            return
        path = Path(self.path.value.strip()).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"there is no file {str(path)!r}; looked in {Path.cwd()}")
        self._take(path)

    def _take(self, path: Path) -> None:
        name = path.name if path.name not in self._files else f"{path.name} (yours)"
        self._files[name] = path
        self.file.options = list(self._files)
        self.file.value = name
        self._examine()  # also if a file of that name was chosen before

    def _render(self) -> None:
        story = self.exhibit.story if self.exhibit else "A file of your own."
        self.story.value = f"<p>Its story: <i>{escape(story)}</i></p>"
        found, known = self.diagnosis, self.diagnosis is not None  # one without findings is false
        self.keys.value = keys_html(found, self.model) if known else ""
        self.findings.value = findings_html(found) if known else ""
        self.done.value = receipt_html(self.receipt)
        self.apply.disabled = not (known and found.fix) or self.receipt is not None or self.built is not None

    def describe(self) -> str:
        """Return the file, the findings, and what the fix does or did."""
        name = self.chosen_path.name
        if self.diagnosis is None:
            return f"{name}: it could not be examined"
        kinds = ", ".join(one.kind for one in self.diagnosis.findings) or "nothing is wrong"
        if self.receipt:
            tensors = self.receipt.tensors
            loaded = sum(tensor.done == "loaded" for tensor in tensors)
            numbers = f"{self.receipt.changed_elements:.1%}".replace("%", " %")
            return (
                f"{name}: {kinds}. The fix was applied: {loaded} of {len(tensors)} tensors loaded, "
                f"{numbers} of the numbers changed"
            )
        if self.built is not None:
            return f"{name}: {kinds}. The fix has built a {type(self.built).__name__} and loaded the file into it"
        if not self.diagnosis.state and self.diagnosis.fix:
            return f"{name}: {kinds}. The fix builds another model and loads the file into it"
        if not self.diagnosis.fix:
            return f"{name}: {kinds}. Nothing can be loaded into this model"
        total = len(self.model.state_dict())
        loads = total - len(self.diagnosis.unloaded)
        return f"{name}: {kinds}. The fix loads {loads} of the model's {total} tensors"

    def code(self) -> str:
        """Return plain PyTorch that loads the file into `model`; "" if nothing can be loaded."""
        if self.diagnosis is None or not self.diagnosis.fix:
            return ""
        return f"# `model` is the model that the file shall be loaded into\n{self.diagnosis.fix.strip()}"

    def to_html(self) -> str:
        """Return what the panel shows; a stored output names no folder of this machine."""
        return super().to_html().replace(f"{self.chosen_path.parent}/", "")

    def close(self) -> None:
        """Take the view away, and the files that were made for it."""
        super().close()
        self._folder.cleanup()


def _builder(name: str) -> Callable[[], nn.Module]:
    return lambda: pretrained.load(name, weights=None)
