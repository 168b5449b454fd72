"""What the frozen blocks give, for each depth and each set of images: computed once, and kept."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from ftlab.random_state import outer_random_state
from ftlab.training import loader
from ftlab.training.caching.cache import Cache
from ftlab.training.caching.images import refuse_random


class Kept:
    """The activations of one model at several depths.

    The trap: the frozen blocks have to be in the same state each time that it is asked; nobody looks again.

    Args:
        model: Of it, the last blocks are trained. It shares its parameters with every `rest`.
        deepest: The depth at which nothing is frozen, so that there is nothing to compute.
    """

    def __init__(self, model: nn.Module, deepest: int) -> None:
        self.model, self.deepest = model, deepest
        self._caches: dict[int, Cache] = {}
        self._known: dict[tuple[int, int], TensorDataset] = {}
        self._datasets: dict[int, _AsOutside] = {}

    def add(self, dataset: Dataset) -> None:
        """Take a dataset in.

        Raises:
            ValueError: An image is another one each time that it is asked for.
        """
        refuse_random(dataset)
        self._datasets.setdefault(id(dataset), _AsOutside(dataset))  # it is held: no other one gets its id

    def has(self, depth: int, dataset: Dataset) -> bool:
        """Return whether there is nothing to compute."""
        return depth == self.deepest or (depth, id(dataset)) in self._known

    def rest(self, depth: int) -> nn.Module:
        """Return what is trained at this depth; the model is prepared for it already."""
        if depth == self.deepest:
            return self.model
        if depth not in self._caches:
            dataset = next(iter(self._datasets.values()))
            self._caches[depth] = Cache(self.model, loader(dataset), progress=False)
        return self._caches[depth].parts.rest

    def of(self, depth: int, dataset: Dataset, should_stop: Callable[[], bool]) -> Dataset:
        """Return what goes into the rest, with the class numbers.

        Raises:
            KeyboardInterrupt: It was stopped; then nothing of this dataset is kept.
        """
        if depth == self.deepest:
            return self._datasets[id(dataset)]
        if not self.has(depth, dataset):
            cache = self._caches[depth]
            cache.should_stop = should_stop
            found = cache.loader(loader(self._datasets[id(dataset)])).dataset
            self._known[depth, id(dataset)] = TensorDataset(found.values[0], found.targets)
        return self._known[depth, id(dataset)]


class _AsOutside(Dataset):
    """The same items; they are read with the random state that they would see without us."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        with outer_random_state():
            return self.dataset[place]
