"""What each switch does, and what it does not: predict, and choose."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn

from ftlab.exercises.behaviour import as_names, images, moved, snapshot, some
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet
from ftlab.modes.measuring import memory_of


def _conv_bn_dropout_fc() -> nn.Sequential:
    layers = {"conv": nn.Conv2d(3, 4, 3), "bn": nn.BatchNorm2d(4), "relu": nn.ReLU()}
    layers |= {
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "drop": nn.Dropout(),
        "fc": nn.Linear(4, 2),
    }
    return nn.Sequential(OrderedDict(layers))


def check_changed_by_looking(answer):
    """Every name of the prediction against one forward pass under `no_grad` in train mode, bit for bit."""
    model = _conv_bn_dropout_fc()
    predicted = as_names(answer(), snapshot(model))
    with torch.no_grad():
        moving = moved(model, lambda: model(images()))
    if predicted - moving:
        text = f"You name {some(predicted - moving)}. We ran it: equal bit for bit afterwards."
        raise Wrong(text, ask="Who would have written into it? There was no loss, and no optimizer.")
    left_out = len(moving - predicted)
    if left_out:
        said = "What you name changes." if predicted else "You name nothing."
        ask = "What does batch norm do in train mode with each batch that it sees? Does that need a gradient?"
        raise Wrong(f"{said} {left_out} more in the list changed too.", ask=ask)


def _as_list_of_buffers():
    return [f"bn.{name}" for name in ("num_batches_tracked", "running_mean", "running_var")]


def _from_a_model():
    return {f"bn.{name}" for name, _ in nn.BatchNorm2d(4).named_buffers()}


def _nothing_changes():
    return set()


def _only_the_mean_and_variance():
    return {"bn.running_mean", "bn.running_var"}


def _all_of_batch_norm():
    return {"bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}


def _as_if_trained():
    return {"conv.weight", "conv.bias", "fc.weight", "fc.bias", *_all_of_batch_norm()}


def _dropout_too():
    return {*_as_list_of_buffers(), "fc.weight"}


@exercise(
    check=check_changed_by_looking,
    hints=[
        "`no_grad` switches off the graph. Is there anything in the list that is written without one?",
        "Batch norm in train mode updates its buffers in the forward pass itself.",
        "It counts its batches, too. Dropout has nothing to write into.",
    ],
    also_right=[_as_list_of_buffers, _from_a_model],
    mistakes=[
        Mistake(_nothing_changes, says="You name nothing. 3 more"),
        Mistake(_only_the_mean_and_variance, says="1 more in the list changed too"),
        Mistake(_all_of_batch_norm, says="You name `bn.bias`, `bn.weight`"),
        Mistake(_as_if_trained, says="equal bit for bit"),
        Mistake(_dropout_too, says="You name `fc.weight`"),
    ],
    remember="`no_grad` is about the graph. Batch norm asks for the mode, and only for the mode.",
)
def changed_by_looking() -> set[str]:
    """Predict: which of these tensors are changed by one forward pass under `no_grad`, in train mode?

        model = nn.Sequential(OrderedDict(
            conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(), drop=nn.Dropout(), fc=nn.Linear(4, 2)))
        with torch.no_grad():
            model(images)

    Name them from: "conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var",
    "bn.num_batches_tracked", "fc.weight", "fc.bias". None at all is `set()`.
    """
    return {"bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}


WAYS: dict[str, Callable[[nn.Module], object]] = {
    "eval": lambda model: model.eval(),
    "train": lambda model: model.train(),
    "frozen": lambda model: model.train().requires_grad_(False),
    "no_grad": lambda model: model.train(),
    "eval + inference_mode": lambda model: model.eval(),
    "norms in eval": lambda model: [m.eval() for m in model.train().modules() if isinstance(m, nn.BatchNorm2d)],
    "dropout in eval": lambda model: [m.eval() for m in model.train().modules() if isinstance(m, nn.Dropout)],
}


def check_repeatable(answer):
    """Each way, run: the same images twice through a network with batch norm and dropout."""
    predicted = as_names(answer(), WAYS)
    same = {name for name in WAYS if _gives_the_same(name)}
    extra, missing = predicted - same, same - predicted
    if extra:
        ask = "Which module in it asks neither for gradients nor for parameters, and draws at random?"
        raise Wrong(f"You name {some(extra)}. We ran it twice: the outputs differ.", ask=ask)
    if missing:
        ask = "Which modules make the output differ, and what does each of the ways do to them?"
        raise Wrong(f"What you name repeats. {len(missing)} more of the ways did, too.", ask=ask)


def _gives_the_same(way: str) -> bool:
    model, batch = SmallResNet(), images()
    model.fc = nn.Sequential(nn.Dropout(0.5), model.fc)
    WAYS[way](model)
    around = {"no_grad": torch.no_grad, "eval + inference_mode": torch.inference_mode}.get(way, torch.enable_grad)
    with around():
        return torch.equal(model(batch), model(batch))


def _by_rule():
    return {"eval", "eval + inference_mode"} | {"dropout in eval"}


def _in_a_list():
    return ["dropout in eval", "eval", "eval + inference_mode"]


def _eval_only():
    return {"eval", "eval + inference_mode"}


def _frozen_too():
    return {"eval", "eval + inference_mode", "dropout in eval", "frozen"}


def _no_grad_too():
    return {"eval", "eval + inference_mode", "dropout in eval", "no_grad"}


def _norms_are_to_blame():
    return {"eval", "eval + inference_mode", "norms in eval"}


def _with_gradients_off():
    return {"no_grad", "eval + inference_mode", "frozen"}


@exercise(
    check=check_repeatable,
    hints=[
        "Two kinds of modules ask for the mode. Only one of them draws at random.",
        "Batch norm in train mode uses the statistics of the batch: the same batch, the same numbers.",
        "Look for the ways in which every dropout is in eval mode.",
    ],
    also_right=[_by_rule, _in_a_list],
    mistakes=[
        Mistake(_eval_only, says="1 more of the ways did"),
        Mistake(_frozen_too, says="You name `frozen`"),
        Mistake(_no_grad_too, says="You name `no_grad`"),
        Mistake(_norms_are_to_blame, says="You name `norms in eval`"),
        Mistake(_with_gradients_off, says="the outputs differ"),
    ],
    remember="Freezing and `no_grad` do not calm dropout. Batch norm is not random; it depends on the batch.",
)
def repeatable() -> set[str]:
    """Predict: in which ways do two forward passes of the same images give the same output?

    The network has batch norm and, in its head, dropout. The ways:
    "eval": all in eval mode. "train": all in train mode. "frozen": in train mode, with `requires_grad_(False)`.
    "no_grad": in train mode, under `no_grad`. "eval + inference_mode": in eval mode, in `inference_mode`.
    "norms in eval": in train mode, but the batch norms. "dropout in eval": in train mode, but the dropout.
    """
    return {"eval", "eval + inference_mode", "dropout in eval"}


LINES: dict[str, Callable[[nn.Module], object]] = {
    "eval": lambda model: model.eval(),
    "no_grad": lambda model: None,  # it is around the pass, not before it
    "zero_grad": lambda model: model.zero_grad(),
    "empty_cache": lambda model: torch.cuda.empty_cache(),
}
REASONS = ["no dropout", "no graph", "no gradients stored", "cache returned"]


def check_out_of_memory(answer):
    """What a ResNet's forward pass keeps in memory with the line that you chose, counted; and the reason."""
    choice, reason = _pair(answer())
    kept = _kept_with(choice)
    if kept:
        text = f"With `{choice}`, {kept:,} bytes of results were still kept for a backward pass, as before."
        raise Wrong(text, ask="What is kept for a backward pass, and which switch says that there will be none?")
    if reason != "no graph":
        text = (
            f"`{choice}` it is: nothing is kept. But not because of {reason!r}: we saw no difference from that."
        )
        raise Wrong(text, ask="What held on to the results of each layer before?")


def _kept_with(choice: str) -> int:
    model, batch = SmallResNet(), images()
    LINES[choice](model)
    return memory_of(model, batch, torch.no_grad if choice == "no_grad" else torch.enable_grad)[0]


def _pair(value: object) -> tuple[str, str]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise Wrong("A choice and a reason were asked for.", ask='Is it like `("eval", "no dropout")`?')
    choice, reason = value
    if choice not in LINES or reason not in REASONS:
        raise Wrong(
            f"{choice!r} with {reason!r} is not among the choices and reasons.", ask="How are they written?"
        )
    return choice, reason


def _as_list():
    return ["no_grad", "no graph"]


def _by_variables():
    choice, reason = "no_grad", "no graph"
    return choice, reason


def _eval_for_dropout():
    return "eval", "no dropout"


def _eval_for_the_graph():
    return "eval", "no graph"


def _gradients_away():
    return "zero_grad", "no gradients stored"


def _the_cache():
    return "empty_cache", "cache returned"


def _right_for_a_wrong_reason():
    return "no_grad", "no gradients stored"


def _only_a_choice():
    return "no_grad"


@exercise(
    check=check_out_of_memory,
    hints=[
        "In a validation nobody calls `backward`. Yet everything is prepared for it.",
        "Eval mode changes what is computed, not what is kept.",
        "Gradients appear in `backward` only. The graph appears in the forward pass.",
    ],
    also_right=[_as_list, _by_variables],
    mistakes=[
        Mistake(_eval_for_dropout, says="were still kept for a backward pass"),
        Mistake(_eval_for_the_graph, says="With `eval`"),
        Mistake(_gradients_away, says="With `zero_grad`"),
        Mistake(_the_cache, says="With `empty_cache`"),
        Mistake(_right_for_a_wrong_reason, says="not because of 'no gradients stored'"),
        Mistake(_only_a_choice, says="A choice and a reason were asked for"),
    ],
    remember="Eval mode decides the numbers, `no_grad` decides the memory. A validation wants both.",
)
def out_of_memory() -> tuple[str, str]:
    """Choose and justify: your validation is right, but runs out of memory. Which line helps?

    Choices: "eval" (`model.eval()` first), "no_grad" (`with torch.no_grad():` around the loop), "zero_grad"
    (`model.zero_grad()` before each batch), "empty_cache" (`torch.cuda.empty_cache()` before each batch).
    Reasons: "no dropout", "no graph", "no gradients stored", "cache returned".
    Return both, the choice first.
    """
    return "no_grad", "no graph"
