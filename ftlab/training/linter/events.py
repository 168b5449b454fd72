"""What happens in a training loop, as a sequence of events; read from the source, or seen in a run."""

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One thing that happens, in one line.

    Attributes:
        kind: "zero_grad", "forward", "backward", "unscale", "clip", "step", "update", "schedule", "train",
            "eval"; "optimizer" or "made" where one is built; "empty_cache"; "judged" for outputs that are
            compared with targets and not trained on; "opaque" for a call that was given the optimizer and
            may do anything.
        line: Where.
        of: What it is done to: a name that was read, or the id of an object that was seen.
        name: What the learner calls it.
        scaled: Of a backward: its loss went through a gradient scaler. Of a step: the scaler makes it.
        grad: Of a forward: whether it is recorded.
        autocast: Whether autocast is on.
        loops: The lines of the loops around it, from the outermost.
        model: Of a zero_grad: it is the model's, not the optimizer's.
    """

    kind: str
    line: int | None
    of: Hashable = None
    name: str = ""
    scaled: bool = False
    grad: bool = True
    autocast: bool = False
    loops: tuple[int, ...] = ()
    model: bool = False
