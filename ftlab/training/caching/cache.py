"""`cached`: the frozen part computed once, the rest trained on what it gave."""

import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm.auto import tqdm

from ftlab.given import refuse_no_model
from ftlab.modes import keep_modes
from ftlab.table import Table, Tabled
from ftlab.training.caching import images as data
from ftlab.training.caching import store
from ftlab.training.caching.activations import Activations, CachedLoader
from ftlab.training.caching.folding import fast
from ftlab.training.caching.held import Held, fingerprint
from ftlab.training.caching.memory_format import in_format, takes_channels_last
from ftlab.training.caching.prefix import Rest, pack, refuse_what_cannot_be_split, split
from ftlab.training.caching.proof import prove
from ftlab.training.caching.side import SideBySide
from ftlab.training.caching.walk import NotExactError

MIB = 2**20
BATCH = {"cpu": 16}  # measured: on a processor larger batches fall out of its cache; see benchmarks/prefix.py
BATCH_ON_GPU = 256


@dataclass(repr=False)
class Cached(Tabled):
    """The rest of a model, and the activations that it is trained on; the repr is the table.

    Attributes:
        model: Activations to logits. It shares its parameters with the whole model: training one trains both.
        train: Batches of activations and class numbers, in the order in which the images would come.
        val: The same of the validation images; None if there were none.
        after: The places in the model whose activations are kept.
        why: Why the part that is computed once ends there.
        bytes: The size of the activations.
        seconds: How long computing them took.
        where: "memory", or the folder; with "found in" if they were computed before.
    """

    model: nn.Module
    train: CachedLoader
    val: CachedLoader | None
    after: list[str]
    why: str
    bytes: int
    seconds: float
    where: str

    def table(self) -> Table:
        """Return what was computed, where it is, and why it ends where it does."""
        count = len(self.train.dataset) + (len(self.val.dataset) if self.val is not None else 0)
        views = len(self.train.dataset.values)
        rows = [
            ["computed once", "up to " + ", ".join(self.after)],
            ["then comes", self.why],
            ["images", f"{count:,}" + (f", the training ones in {views} views" if views > 1 else "")],
            ["activations", f"{self.bytes / MIB:,.1f} MiB, {self.where}"],
        ]
        return Table(["what", "found"], rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers and names as a dictionary."""
        names = ("after", "why", "bytes", "seconds", "where")
        return {name: getattr(self, name) for name in names}


def cached(
    model: nn.Module,
    train: DataLoader,
    val: DataLoader | None = None,
    *,
    views: int | None = None,
    folder: str | Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
) -> Cached:
    """Compute once what the frozen part of `model` gives for each image, to train the rest on it.

    The model is not changed, nor is the random state (with `views` it goes on). A frozen part in eval mode gives
    the same for the same image in every epoch; so the loss and the parameters are those of the plain loop, up to
    rounding, in a fraction of the time. `fit` does this by itself where it pays; call it yourself to train
    several heads on the same activations, or to keep them in a folder.

    The trap: `requires_grad_(False)` is half of it. A batch norm in train mode moves, and a dropout or stochastic
    depth in train mode is another one each time: the part that is computed once ends before the first of them.
    Put the frozen part in eval mode, `model.features.eval()`, or use `ftlab.freezing.freeze` for batch norm.

    Args:
        model: As for `fit`: frozen, and in the modes, as it is going to be trained.
        train: Batches of images and class numbers (N,); its sampler decides the order of the activations too.
        val: Is treated in the same way.
        views: Keep that many versions of each training image, one for each epoch in turn: for augmentation. This
            is no longer the plain loop, which never sees the same version again. None refuses augmentation.
        folder: Keep the activations in files there, and use them again if model and data are the same. None keeps
            them in memory, or in temporary files if they need more than a quarter of what is free.
        should_stop: Asked before each batch; True ends with KeyboardInterrupt, and nothing is kept.
        progress: Show a bar.

    Returns:
        `model`, `train` and `val` to be given to `fit` instead.

    Raises:
        ValueError: The result would be another one than that of the plain loop. The message says why.
        OSError: The disk has no room.

    Example:
        >>> from ftlab.training import fit, loader
        >>> pictures = torch.utils.data.TensorDataset(torch.randn(8, 4), torch.tensor([0, 1] * 4))
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> _ = model[0].requires_grad_(False)
        >>> quick = cached(model, loader(pictures, batch_size=4), progress=False)
        >>> quick.after, quick.why
        (['1'], "'2' is trainable")
        >>> optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
        >>> fit(quick.model, quick.train, epochs=3, optimizer=optimizer, progress=False).epochs
        3
    """
    if not isinstance(model, nn.Module):
        refuse_no_model(model)
    if views is not None and not (isinstance(views, int) and views >= 1):
        raise ValueError(f"views must be at least 1, not {views!r}")
    start = time.perf_counter()
    cache = Cache(model, train, should_stop=should_stop, progress=progress, folder=folder)
    train_loader = cache.loader(train, views=views)
    val_loader = _of_val(cache, val) if val is not None else None
    return cache.result(train_loader, val_loader, time.perf_counter() - start)


def _of_val(cache: "Cache", val: DataLoader) -> CachedLoader:
    try:
        return cache.loader(val)
    except NotExactError as error:
        reason, random, _ = str(error).partition(data.VIEWS)
        repair = ". What is measured is measured on the same images each time: give val other transforms"
        raise NotExactError(f"val: {reason}{repair if random else ''}") from error


@dataclass
class Cache:
    """A model cut in two, proved, and what its frozen part gave for each dataset so far.

    Args:
        model: The model.
        example: A loader of images, for the cut and its proof.
        folder: As in `cached`.
        disk: Whether temporary files may be used if memory is short.
    """

    model: nn.Module
    example: DataLoader
    should_stop: Callable[[], bool] = lambda: False
    progress: bool = True
    folder: str | Path | None = None
    disk: bool = True
    where: str = "in memory"
    _known: dict[tuple, Activations] = field(default_factory=dict)
    _looks: dict[int, tuple[Dataset, data.Look]] = field(default_factory=dict)
    _temporary: str = ""

    def __post_init__(self) -> None:
        refuse_what_cannot_be_split(self.model)
        data.refuse_loader(self.example)
        device = next(self.model.parameters()).device
        few = data.probe(self.example.dataset).to(device)
        self.parts = split(self.model, few)
        activations = prove(self.model, self.parts, few)
        self.prefix = fast(self.parts.prefix, few, activations)
        rest = self.parts.rest
        rest.channels_last = _both_modes(rest, activations)
        self.held = Held(self.model, self.parts)
        packed = pack(activations)
        self.shape, self.dtype, self.device = packed.shape[1:], packed.dtype, device
        self.batch = BATCH.get(device.type, BATCH_ON_GPU)

    def loader(self, images: DataLoader, views: int | None = None) -> CachedLoader:
        """Return the activations in the order of this loader; they are computed if they are not known yet."""
        data.refuse_loader(images)
        if views is None:
            data.refuse_random(images.dataset)
        key = (id(images.dataset), views)
        if key not in self._known:
            values = self._same(images.dataset) if views is None else self._views(images.dataset, views)
            classes = list(getattr(images.dataset, "classes", []))
            self._known[key] = Activations([each for each, _ in values], values[0][1], classes)
        self._looks.setdefault(id(images.dataset), (images.dataset, data.Look(images.dataset)))
        return CachedLoader(self._known[key], images, lambda: self.changed(images.dataset))

    def result(self, train: CachedLoader, val: CachedLoader | None, seconds: float) -> Cached:
        """Return what `cached` gives."""
        size = sum(value.nbytes for known in self._known.values() for value in known.values)
        parts = self.parts
        return Cached(parts.rest, train, val, parts.after, parts.why, size, seconds, self.where)

    def _views(self, dataset: Dataset, views: int) -> list[tuple[Tensor, Tensor]]:
        return [self._one_view(dataset, view) for view in range(views)]

    def _same(self, dataset: Dataset) -> list[tuple[Tensor, Tensor]]:
        """Compute the one view of a dataset that has to give the same whenever it is asked."""
        with data.asked_the_same(dataset) as same:
            return self._views(same, 1)

    def changed(self, only: Dataset | None = None) -> str:
        """Return what changed since the activations were computed, of all datasets or `only` one; else ""."""
        if changed := self.held.changed():
            return changed
        for dataset, look in self._looks.values():
            if (only is None or only is dataset) and (changed := look.changed()):
                return changed
        return ""

    def _one_view(self, dataset: Dataset, view: int) -> tuple[Tensor, Tensor]:
        def fill(room: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
            return self._fill(room((len(dataset), *self.shape), self.dtype), dataset)

        size = len(dataset) * self.shape.numel() * self.dtype.itemsize
        if self.folder is None and store.fits_in_memory(size):
            return fill(store.in_memory)
        if self.folder is None and not self.disk:
            raise NotExactError(f"the activations need {size / MIB:,.0f} MiB of memory")
        folder = Path(self.folder or self._temporary_folder())
        name = fingerprint(self.model, self.parts, f"{data.digest(dataset)} view {view}")
        found = store.kept(folder, name)
        self.where = f"{'in' if found is None else 'found in'} {folder}"
        return found or store.keep(folder, name, fill)

    def _temporary_folder(self) -> str:
        """Return a folder that is taken away with this object."""
        if not self._temporary:
            self._temporary = tempfile.mkdtemp(prefix="ftlab-activations-")
            weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
        return self._temporary

    def _fill(self, values: Tensor, dataset: Dataset) -> tuple[Tensor, Tensor]:
        """Run the prefix over the dataset, batch by batch, and write what it gives into `values`."""
        targets = []
        starts = range(0, len(values), self.batch)
        with SideBySide(self.device) as beside:
            for start in tqdm(starts, desc="frozen part, once", disable=not self.progress, leave=False):
                if self.should_stop():
                    raise KeyboardInterrupt
                items = [dataset[place] for place in range(start, min(start + self.batch, len(values)))]
                targets += [target for _, target in items]
                images = data.stack([image for image, _ in items])
                beside.call(self._run_prefix, images, values[start : start + len(items)])
        return values, _collate(targets)

    @torch.inference_mode()
    def _run_prefix(self, images: Tensor, values: Tensor) -> None:
        found = pack(self.prefix(in_format(images.to(self.device))))
        if found.shape[1:] != self.shape:  # one that is smaller could be stretched
            raise NotExactError(
                f"images of another size give activations of another size: {tuple(found.shape[1:])}, "
                f"not {tuple(self.shape)}"
            )
        values.copy_(found)


def _both_modes(rest: Rest, activations: tuple[Tensor, ...]) -> bool:
    """Return whether the rest takes the channels last, in the modes as they are and in eval mode."""
    if activations[0].device.type != "cpu":
        return False
    with keep_modes(rest):
        as_is = takes_channels_last(rest, rest.unpacked, *activations)
        return as_is and takes_channels_last(rest.eval(), rest.unpacked, *activations)


def _collate(targets: list[Any]) -> Tensor:
    collated = default_collate(targets)
    if not isinstance(collated, Tensor):
        raise NotExactError(f"a target is no number but {type(targets[0]).__name__}")
    return collated
