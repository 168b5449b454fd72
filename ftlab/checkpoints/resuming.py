"""Prove that a stopped training goes on as if it had not stopped, or show where it parts."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftlab.freezing.evidence import named_tensors
from ftlab.random_state import keep_random_state
from ftlab.table import Table, Tabled

from .fresh import call_fresh
from .loading import load
from .names import bare_names, bare_state_dict
from .restoring import restore
from .runs import Run

MakeRun = Callable[[], Run]
WHOLE, PARAMETERS, BUFFERS = "nothing", "parameters", "buffers"  # besides the parts of a checkpoint
Prints = dict[int, dict[str, str]]  # step -> name of an entry -> its fingerprint


@dataclass(frozen=True)
class Resume:
    """How a resumed training compares with one that never stopped; the repr says it.

    Attributes:
        stop_at: After how many steps it was stopped.
        steps: How many steps there are in all.
        step: The first step after which something differs; None if nothing ever does.
        names: What differs after that step; the first entries of the model first.
        difference: The largest absolute difference between two parameters or buffers at the end.
        reproducible: Whether the straight run itself repeats; if not, no checkpoint can help.
        fresh: Whether the second half ran in a fresh process.
    """

    stop_at: int
    steps: int
    step: int | None
    names: list[str]
    difference: float
    reproducible: bool = True
    fresh: bool = True

    @property
    def exact(self) -> bool:
        """Whether every bit of every tensor is the same after every step."""
        return self.step is None

    def __repr__(self) -> str:
        where = "in a fresh process" if self.fresh else "in the same process"
        begin = f"stopped after {self.stop_at} of {self.steps} steps and resumed {where}: "
        if self.exact:
            return f"{begin}bit-exact, every tensor after every step"
        shown = ", ".join(self.names[:3]) + (f" and {len(self.names) - 3} more" if len(self.names) > 3 else "")
        if not self.reproducible:
            return (
                f"the run does not even repeat itself: two straight runs differ after step {self.step} in "
                f"{shown}. Is there data or a model that is made from a random number outside of make_run?"
            )
        moment = "as soon as it is loaded" if self.step == self.stop_at - 1 else f"after step {self.step}"
        return (
            f"{begin}it parts {moment}, in {shown}; at the end the model differs by up to {self.difference:.2g}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return {"exact": self.exact, **vars(self)}


@dataclass(frozen=True, repr=False)
class Ablation(Tabled):
    """What each saved part is for: the resumed run without it; the repr is the table.

    Attributes:
        results: The comparison for each part that was left out; "nothing" is the whole checkpoint.
    """

    results: dict[str, Resume]

    def table(self) -> Table:
        """Return one row per part: when the run parted, in what first, and how far it got."""
        rows = []
        for part, result in self.results.items():
            parted = "never" if result.exact else result.step
            rows.append([part, parted, result.names[0] if result.names else "", result.difference])
        return Table(["left out", "differs after step", "first in", "difference at the end"], rows)

    def plot(self):
        """Return a picture: a bar per part, as long as the model is off without it."""
        from .picture import draw

        return draw(self)

    def to_dict(self) -> dict[str, Any]:
        """Return each result as plain values, by part."""
        return {part: result.to_dict() for part, result in self.results.items()}


def verify_resume(make_run: MakeRun, stop_at: int, steps: int, *, fresh: bool = True) -> Resume:
    """Run a training straight, and stopped and resumed in a fresh process; return where they first differ.

    Nothing that exists already is changed: `make_run` makes its own model. The random state is as before.

    The trap: a loss that "looks right" after resuming proves nothing. What was not saved, such as a momentum, the
    place in a schedule or in a shuffled data set, shows after some steps, and only in the numbers.

    Args:
        make_run: Builds model, optimizer, ... and returns them as a `Run`. It is called in both processes, with
            other random seeds, so that whatever is not in the checkpoint differs. So the data must not hang on
            the seed outside: draw them from a generator of their own. It may stand in a notebook cell (with the
            package cloudpickle).
        stop_at: After how many steps it is saved and stopped.
        steps: How many steps there are in all.
        fresh: False resumes in this process: faster, and it cannot see what only a restart loses.

    Raises:
        ValueError: `stop_at` is not between 0 and `steps`.
        RuntimeError: The fresh process failed; the message has the end of what it said.

    Example:
        >>> def make_run():
        ...     model = torch.nn.Linear(2, 1)
        ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        ...     def step(number):
        ...         optimizer.zero_grad()
        ...         model(torch.randn(4, 2)).square().mean().backward()
        ...         optimizer.step()
        ...     return Run(step, model=model, optimizer=optimizer)
        >>> verify_resume(make_run, stop_at=2, steps=4, fresh=False)
        stopped after 2 of 4 steps and resumed in the same process: bit-exact, every tensor after every step
    """
    return _compare(make_run, stop_at, steps, fresh, parts=False)[WHOLE]


def ablate(make_run: MakeRun, stop_at: int, steps: int, *, fresh: bool = True) -> Ablation:
    """Resume a training once with the whole checkpoint and once without each of its parts.

    Nothing that exists already is changed, and the arguments are those of `verify_resume`. The run must be saved
    by `ftlab.checkpoints.save`, whose parts are known.

    Returns:
        The parts, each with what happens without it: what each is saved for.
    """
    return Ablation(_compare(make_run, stop_at, steps, fresh, parts=True))


def _compare(make_run: MakeRun, stop_at: int, steps: int, fresh: bool, parts: bool) -> dict[str, Resume]:
    if not 0 <= stop_at <= steps:
        raise ValueError(f"stop_at must be between 0 and the {steps} steps, not {stop_at}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.pt")
        straight, end = _go(make_run, range(steps), seed=0)
        before, _ = _go(make_run, range(stop_at), seed=0, write=path)
        left_out = [WHOLE, *(_parts(load(path)) if parts else [])]
        if parted := _first_difference(straight, before):
            return {WHOLE: Resume(stop_at, steps, *parted, 0.0, reproducible=False, fresh=fresh)}
        arguments = make_run, str(path), stop_at, steps, left_out
        found = call_fresh(resumed, *arguments) if fresh else resumed(*arguments)
    results = {}
    for part, (prints, state) in found.items():
        parted = _first_difference(straight, prints, only="model " if parts else "") or (None, [])
        results[part] = Resume(stop_at, steps, *parted, _distance(end, state), fresh=fresh)
    return results


def resumed(make_run: MakeRun, path: str, stop_at: int, steps: int, left_out: list[str]) -> dict[str, tuple]:
    """Resume from the file without each of the parts; return the fingerprints and the model at the end."""
    return {
        part: _go(make_run, range(stop_at, steps), seed=1, read=lambda run, part=part: _read(run, path, part))
        for part in left_out
    }


def _go(
    make_run: MakeRun,
    numbers: range,
    *,
    seed: int,
    read: Callable[[Run], None] | None = None,
    write: Path | None = None,
) -> tuple[Prints, dict[str, Tensor]]:
    """Make a run and let it go; return the fingerprints before and after each step, and the model at the end."""
    with keep_random_state(seed):
        run = make_run()
        if not isinstance(run, Run):
            given = type(run).__name__
            raise TypeError(f"make_run must return a Run, not a {given}: return Run(step, model=model, ...)")
        if read:
            read(run)
        prints = {numbers.start - 1: run.prints()}
        for number in numbers:
            run.step(number)
            prints[number] = run.prints()
        if write:
            run.write(write)
    return prints, {name: tensor.detach().clone() for name, tensor in named_tensors(run.model).items()}


def _read(run: Run, path: str, without: str) -> None:
    """Put the checkpoint into the run, all but one part of it."""
    if without == WHOLE:
        run.read(Path(path))
        return
    checkpoint = load(path)
    if without in (PARAMETERS, BUFFERS):
        own, parameters = bare_state_dict(run.model), _parameter_names(run)
        for name in checkpoint["model"]:
            if (name in parameters) == (without == PARAMETERS):
                checkpoint["model"][name] = own[name].clone()
    elif without.startswith("random "):
        del checkpoint["random_state"][without.removeprefix("random ")]
    else:
        del checkpoint[without]
    restore(checkpoint, **{name: part for name, part in run.parts().items() if name in checkpoint})


def _parts(checkpoint: dict[str, Any]) -> list[str]:
    """Return what can be left out of a checkpoint of `save`."""
    names = [name for name in ("optimizer", "scheduler", "scaler", "gradients") if checkpoint.get(name)]
    return [PARAMETERS, BUFFERS, *names, *(f"random {name}" for name in checkpoint.get("random_state", {}))]


def _parameter_names(run: Run) -> set[str]:
    bare = bare_names(run.model)
    return {bare(name) for name, _ in run.model.named_parameters(remove_duplicate=False)}


def _first_difference(one: Prints, other: Prints, only: str = "") -> tuple[int, list[str]] | None:
    """Return the first step after which two runs differ, and in what."""
    for step in sorted(one.keys() & other.keys()):
        names = [name for name in one[step] | other[step] if name.startswith(only)]
        names = [name for name in names if one[step].get(name) != other[step].get(name)]
        if names:
            return step, names
    return None


def _distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest absolute difference between two models; NaN equals NaN."""
    pairs = [(one[name].double(), other[name].double()) for name in one.keys() & other.keys()]
    gaps = [torch.where(a.isnan() & b.isnan(), 0.0, (a - b).abs()).max().item() for a, b in pairs if a.numel()]
    return max(gaps, default=0.0)
