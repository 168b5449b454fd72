"""Strategies side by side: on the same images, over the same seeds, with what each of them took."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tqdm.auto import tqdm

from ftlab.random_state import keep_random_state

from .comparison import Comparison
from .declaring import Strategy
from .drawing import Case, whole
from .running import Model, Run, fresh, run


def compare(
    strategies: Sequence[Strategy],
    data: Mapping[str, Case],
    seeds: int | Sequence[int] = 3,
    *,
    model: Model = "efficientnet_lite0",
    should_stop: Callable[[], bool] = lambda: False,
    on_run: Callable[[Comparison], Any] = lambda comparison: None,
    progress: bool = True,
) -> Comparison:
    """Train each strategy on each case with each seed, and return accuracy, time and memory side by side.

    The model is not changed: each training has a copy with a new head. With one seed every strategy sees the same
    images, starts with the same head and has the same number of epochs. The random state outside is as before.
    Cases that share their training images and differ in the test images are trained once.

    The trap: it compares strategies *at the rates that were given*. One that does badly may have a bad rate; hand
    over the same strategy with several rates before you say that it does not work.

    Ctrl-C and the kernel's stop button end it cleanly: the trainings that were finished are returned.

    Args:
        strategies: What to try, each with a name of its own.
        data: From a name to a `Case`.
        seeds: How many (0, 1, ...), or which.
        model: A name for `ftlab.pretrained.load`, or a model of your own.
        should_stop: Asked before each batch; True ends it as Ctrl-C does.
        on_run: Called after each training with all that is there so far, to show it, or to save it: an error in a
            later training (an image that cannot be read) ends it all.
        progress: Show a bar.

    Raises:
        ValueError: There is nothing to compare, two strategies have one name, or a part of a strategy chooses
            nothing in the model. It is said before anything is trained.
        TypeError: What should be a strategy or a case is something else.
    """
    strategies = strategies if isinstance(strategies, Strategy) else list(strategies)
    _check_kinds(strategies, data)
    seeds = _seeds(seeds)
    _check_names_and_parts(strategies, model)
    runs: list[Run] = []
    stopped = ""
    work = [(seed, group, strategy) for seed in seeds for group in _groups(data) for strategy in strategies]
    with tqdm(total=len(work), disable=not progress, leave=False) as bar:
        try:
            for seed, group, strategy in work:
                bar.set_postfix_str(f"{strategy.name}, {next(iter(group))}, seed {seed}")
                runs += run(model, strategy, group, seed, should_stop=should_stop)
                bar.update()
                on_run(Comparison(_in_order(runs, strategies, data)))
        except KeyboardInterrupt as stop:
            stopped = str(stop) or "stopped by hand"
    return Comparison(_in_order(runs, strategies, data), stopped=stopped)


def _groups(data: Mapping[str, Case]) -> list[dict[str, Case]]:
    """Put together the cases that are trained on the same images."""
    groups: dict[tuple, dict[str, Case]] = {}
    for name, case in data.items():
        groups.setdefault((id(case.train), case.images, case.epochs), {})[name] = case
    return list(groups.values())


def _in_order(runs: list[Run], strategies: Sequence[Strategy], data: Mapping[str, Case]) -> list[Run]:
    names, cases = [one.name for one in strategies], list(data)
    return sorted(runs, key=lambda one: (names.index(one.strategy), cases.index(one.case), one.seed))


def _check_kinds(strategies: Sequence[Strategy], data: Mapping[str, Case]) -> None:
    if isinstance(strategies, Strategy):
        raise TypeError(f"strategies is a list: compare([{strategies.name!r} ...], data)")
    if not isinstance(data, Mapping):
        kind = type(data).__name__
        raise TypeError(f"data is a dictionary, {{'my images': Case(train, test)}}; found a {kind}")
    for given, kind, make in (
        (strategies, Strategy, "Strategy('head only', {'head': 3e-3})"),
        (list(data.values()), Case, "Case(train, test)"),
    ):
        if wrong := [one for one in given if not isinstance(one, kind)]:
            found = type(wrong[0]).__name__
            raise TypeError(f"expected a {kind.__name__}, found a {found}: {wrong[0]!r}; make one: {make}")
        if not given:
            raise ValueError(f"there is nothing to compare: no {kind.__name__} was given")


def _seeds(given: int | Sequence[int]) -> list[int]:
    several = isinstance(given, Iterable) and not isinstance(given, str)
    found = [whole("a seed", one) for one in given] if several else list(range(whole("seeds", given)))
    if not found or len(set(found)) < len(found):
        raise ValueError(f"seeds are one or more different whole numbers, or how many; not {given!r}")
    return found


def _check_names_and_parts(strategies: Sequence[Strategy], model: Model) -> None:
    """Refuse what could not be trained, before an hour of training."""
    names = [one.name for one in strategies]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two strategies are called {twice.pop()!r}; each needs a name of its own")
    with keep_random_state():
        for strategy in strategies:
            strategy.apply(fresh(model, strategy.pretrained, 2), 2)
