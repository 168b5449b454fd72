"""Memory: what is kept, and what makes it less."""

import torch
from torch import nn
from torch.nn import functional as F

from ftlab.exercises.behaviour import as_names, choice_and_reason, images
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet
from ftlab.modes import memory_of
from ftlab.training import memory_growth

# --- what_grows


def _add_loss(total, loss, output):
    return total + loss


def _add_item(total, loss, output):
    return total + loss.item()


def _add_detached(total, loss, output):
    return total + loss.detach()


def _collect(total, loss, output):
    return [*(total or []), output]


def _collect_detached(total, loss, output):
    return [*(total or []), output.detach()]


def _add_after_backward(total, loss, output):
    loss.backward()
    return total + loss


_KEEPS = {
    "total += loss": _add_loss,
    "total += loss.item()": _add_item,
    "total += loss.detach()": _add_detached,
    "outputs.append(output)": _collect,
    "outputs.append(output.detach())": _collect_detached,
    "loss.backward(); total += loss": _add_after_backward,
}


def check_what_grows(answer):
    """The bytes of a small network's activations after 1, 2 and 4 batches, counted for each of the lines."""
    said = as_names(answer(), _KEEPS)
    model = SmallResNet().eval()
    batches = [(images(), torch.randint(3, (4,))) for _ in range(4)]
    for line, keep in _KEEPS.items():
        growth = memory_growth(lambda some, keep=keep: _loop(model, some, keep), batches)
        if growth.grows and line not in said:
            text = f"With `{line}` each further batch keeps {growth.per_batch:,.0f} bytes."
            raise Wrong(text, ask="What hangs on a tensor that has a `grad_fn`?")
        if not growth.grows and line in said:
            text = f"With `{line}` no activation of a batch is alive after it."
            raise Wrong(text, ask="When are the activations of a batch let go, and who still asks for them?")


def _loop(model: nn.Module, batches: list, keep) -> object:
    total = 0
    for x, y in batches:
        output = model(x)
        total = keep(total, F.cross_entropy(output, y), output)
    return total


def _grows_as_list():
    return ["outputs.append(output)", "total += loss"]


def _loss_after_backward_too():
    return {"total += loss", "outputs.append(output)", "loss.backward(); total += loss"}


def _lists_only():
    return {"outputs.append(output)", "outputs.append(output.detach())"}


def _detach_is_a_copy():
    return {"total += loss", "outputs.append(output)", "outputs.append(output.detach())"}


def _only_the_sum():
    return {"total += loss"}


@exercise(
    check=check_what_grows,
    hints=[
        "A tensor with a `grad_fn` holds the graph that made it, and the graph the activations for backward.",
        "`backward()` lets them go as it passes. What is then left of the graph is small.",
        "`memory_growth` counts it: write a function that takes a list of batches and returns what it kept.",
    ],
    also_right=[_grows_as_list],
    mistakes=[
        Mistake(_loss_after_backward_too, says="With `loss.backward(); total += loss` no activation"),
        Mistake(_lists_only, says="With `total += loss` each further batch keeps"),
        Mistake(_detach_is_a_copy, says="With `outputs.append(output.detach())` no activation"),
        Mistake(_only_the_sum, says="With `outputs.append(output)` each further batch keeps"),
    ],
    remember="Whoever keeps a tensor with a grad_fn keeps its graph; backward empties it.",
    seconds=30,
)
def what_grows() -> set[str]:
    """Predict: with which of these lines in the loop do the *activations* of every batch stay in memory?

        output = model(x); loss = cross_entropy(output, y)   # in eval mode, and nobody has said no_grad

    "total += loss", "total += loss.item()", "total += loss.detach()", "outputs.append(output)",
    "outputs.append(output.detach())", "loss.backward(); total += loss".
    """
    return {"total += loss", "outputs.append(output)"}


# --- less_memory

_CHOICES = ("empty_cache", "del", "eval", "no_grad")
_ASK = "Which of them changes what is kept while the images go through, and which only tidies up?"
_REASONS = {
    "no graph": "",
    "cache": "The peak was measured on the processor, where there is no such cache, and it was lower.",
    "half": "No number became smaller: the outputs are those of before, bit for bit.",
    "dropout": "Dropout was off before, too.",
}


def check_less_memory(answer):
    """The peak of a validation of four batches, counted with each choice; the reason."""
    choice, reason = choice_and_reason(answer(), _CHOICES, _REASONS)
    model = SmallResNet().eval()
    batches = [images() for _ in range(4)]
    peaks = {way: memory_of(run, batches)[1] for way, run in _ways(model).items()}
    if peaks[choice] > min(peaks.values()):
        text = f'With "{choice}" the peak is {peaks[choice]:,} bytes, and {peaks["nothing"]:,} without it'
        more = "; another choice lowers it more" if peaks[choice] < peaks["nothing"] else ""
        raise Wrong(f"{text}{more}.", ask=_ASK)
    if _REASONS[reason]:
        raise Wrong(f'The choice is right, "{reason}" is not why. {_REASONS[reason]}', ask=_ASK)


def _ways(model: nn.Module) -> dict:
    def plain(batches, tidy=lambda: None):
        for x in batches:
            output = model(x)
            output.argmax(1)
            tidy()

    def deleted(batches):
        for x in batches:
            output = model(x)
            output.argmax(1)
            del output

    return {
        "nothing": plain,
        "empty_cache": lambda batches: plain(batches, torch.cuda.empty_cache),
        "del": deleted,
        "eval": lambda batches: (model.eval(), plain(batches))[1],
        "no_grad": lambda batches: torch.no_grad()(plain)(batches),
    }


def _less_as_list():
    return ["no_grad", "no graph"]


def _less_by_cache():
    return "empty_cache", "cache"


def _less_by_del():
    return "del", "no graph"


def _less_by_eval():
    return "eval", "dropout"


def _less_as_call():
    return "torch.no_grad()", "no graph"


def _less_wrong_reason():
    return "no_grad", "half"


@exercise(
    check=check_less_memory,
    hints=[
        "A peak is reached in the middle of a forward pass. What is alive then that is never asked for again?",
        "`empty_cache` frees no tensor of yours: it hands memory that is free already to other programs.",
    ],
    also_right=[_less_as_list],
    mistakes=[
        Mistake(_less_by_cache, says='With "empty_cache" the peak is'),
        Mistake(_less_by_del, says='With "del" the peak is'),
        Mistake(_less_by_eval, says='With "eval" the peak is'),
        Mistake(_less_as_call, says="`torch.no_grad()` is none of the choices"),
        Mistake(_less_wrong_reason, says="is not why. No number became smaller"),
    ],
    remember="Not keeping beats tidying up: no_grad for a validation.",
)
def less_memory() -> tuple[str, str]:
    """Choose and justify: a validation, in eval mode already, runs out of memory. What lowers its peak most?

    Choices: "empty_cache" (`torch.cuda.empty_cache()` after each batch), "del" (`del output` after each batch),
    "eval" (`model.eval()` once more), "no_grad" (the loop inside `torch.no_grad()`).
    Reasons: "no graph" (activations are let go as soon as the next layer has them), "cache" (free memory is
    handed back), "half" (numbers of half the size), "dropout" (dropout takes memory). Return choice and reason.
    """
    return "no_grad", "no graph"
