"""Targets: which loss wants what, and how labels become probabilities."""

import torch
from torch import nn
from torch.nn import functional as F

from ftlab.exercises.behaviour import as_names, as_number
from ftlab.exercises.core import Mistake, Raised, Wrong, exercise
from ftlab.plural import plural

# --- smoothed


def check_smoothed(answer):
    """The targets for three batches, one without the last classes: loss, rows, the labels afterwards."""
    for labels, classes, amount in (([3, 0, 2, 1, 4, 4], 5, 0.1), ([2, 0], 5, 0.2), ([0, 1, 1, 0], 3, 0.0)):
        given = torch.tensor(labels)
        where = f"For the labels `{labels}` and {classes} classes"
        value = _targets_of(answer, given, classes, amount, where)
        _expect_labels_kept(given, labels, where)
        logits = torch.randn(len(labels), classes)
        wanted = F.cross_entropy(logits, given, label_smoothing=amount)
        try:
            loss = F.cross_entropy(logits, value)
        except RuntimeError as error:
            raise Wrong(
                f"{where} `cross_entropy` refuses your targets: `{error}`.", ask="Which type has a share?"
            ) from None
        _expect_shares(value, where)
        if not abs(loss.item() - wanted.item()) <= 1e-5:
            text = f"{where} and an amount of {amount} the loss is not that of `label_smoothing={amount}`."
            raise Wrong(
                text, ask="Among how many classes is the amount shared out, the right one counted or not?"
            )


def _targets_of(answer, given: torch.Tensor, classes: int, amount: float, where: str) -> torch.Tensor:
    value = answer(given, classes, amount)
    if not isinstance(value, torch.Tensor):
        text = f"You gave a `{type(value).__name__}`, no tensor."
        raise Wrong(text, ask="What does `cross_entropy` take as targets?")
    if value.dim() != 2 or len(value) != len(given):
        text = f"{where} your targets have the shape `{tuple(value.shape)}`."
        raise Wrong(text, ask=f"Is there a row for each of the {len(given)} labels, and a column for each class?")
    if value.shape != (len(given), classes):
        text = f"{where} your targets have the shape `{tuple(value.shape)}`."
        raise Wrong(
            text, ask="Does `one_hot` know how many classes there are, if the last one is not in the batch?"
        )
    return value


def _expect_labels_kept(given: torch.Tensor, labels: list, where: str) -> None:
    if given.shape != (len(labels),) or given.tolist() != labels:
        text = f"{where} the caller's own labels are changed: they now have the shape `{tuple(given.shape)}`."
        raise Wrong(text, ask="What does an underscore at the end of a method say?")


def _expect_shares(value: torch.Tensor, where: str) -> None:
    sums = value.sum(1)
    if not (sums - 1).abs().max() <= 1e-5:
        text = f"{where} a row of your targets sums up to {sums[0].item():.3g}."
        raise Wrong(text, ask="What is added to the right class, and what is taken from it?")


def _with_scatter(labels, classes, amount):
    targets = torch.full((len(labels), classes), amount / classes)
    return targets.scatter_(1, labels.unsqueeze(1), 1 - amount + amount / classes)


def _with_eye(labels, classes, amount):
    return (1 - amount) * torch.eye(classes)[labels] + amount / classes


def _guessed_classes(labels, classes, amount):
    return (1 - amount) * F.one_hot(labels).float() + amount / classes


def _resized_labels(labels, classes, amount):
    column = labels.resize_(len(labels), 1)
    targets = torch.zeros(len(labels), classes).scatter_(1, column, 1.0)
    return (1 - amount) * targets + amount / classes


def _whole_numbers(labels, classes, amount):
    return F.one_hot(labels, classes)


def _others_only(labels, classes, amount):
    hot = F.one_hot(labels, classes).float()
    return (1 - amount) * hot + amount / (classes - 1) * (1 - hot)


def _added_only(labels, classes, amount):
    return F.one_hot(labels, classes) + amount / classes


def _as_array(labels, classes, amount):
    return _with_eye(labels, classes, amount).numpy()


def _forgets_the_amount(labels, classes, amount):
    return F.one_hot(labels, classes).float()


@exercise(
    check=check_smoothed,
    hints=[
        "First one-hot, as fractions: 1 for the right class, 0 for the others.",
        "`one_hot(labels)` guesses the number of classes from the largest label. Tell it.",
        "Keep `1 - amount` of it, and share `amount` out among all classes, the right one too.",
    ],
    also_right=[_with_scatter, _with_eye],
    mistakes=[
        Mistake(_guessed_classes, says="your targets have the shape `(2, 3)`"),
        Mistake(_resized_labels, says="the caller's own labels are changed"),
        Mistake(_whole_numbers, says="`cross_entropy` refuses your targets"),
        Mistake(_others_only, says="the loss is not that of"),
        Mistake(_added_only, says="sums up to 1.1"),
        Mistake(_as_array, says="You gave a `ndarray`"),
        Mistake(_forgets_the_amount, says="the loss is not that of"),
    ],
    remember="cross_entropy takes class numbers, or probabilities as floats; tell one_hot the number of classes.",
)
def smoothed(labels: torch.Tensor, classes: int, amount: float) -> torch.Tensor:
    """Write: return smoothed targets (N, classes) for the class numbers `labels` (N,).

    Each row is `1 - amount` of the right class, and `amount` shared out equally among all classes, the right one
    too. In `cross_entropy` that gives what `label_smoothing=amount` gives. The labels stay as they are.
    """
    return (1 - amount) * nn.functional.one_hot(labels, classes) + amount / classes


# --- same_loss

_OUTPUTS = {
    "logits": lambda logits: logits,
    "softmax": lambda logits: logits.softmax(1),
    "log_softmax": lambda logits: logits.log_softmax(1),
}
_LOSSES = {"cross_entropy": F.cross_entropy, "nll_loss": F.nll_loss}
_PAIRS = [f"{output} + {loss}" for output in _OUTPUTS for loss in _LOSSES]


def check_same_loss(answer):
    """Each pair, computed on random logits of 10 classes, against cross entropy by its definition."""
    said = as_names(answer(), _PAIRS)
    logits, labels = torch.randn(64, 10), torch.randint(10, (64,))
    wanted = -logits.softmax(1)[torch.arange(64), labels].log().mean()
    for pair in _PAIRS:
        output, loss = pair.split(" + ")
        value = _LOSSES[loss](_OUTPUTS[output](logits), labels)
        same = abs(value.item() - wanted.item()) < 1e-4
        if same and pair not in said:
            text = f"`{pair}` is the cross entropy as well, and you left it out."
            raise Wrong(text, ask=_SAME_ASKS[pair])
        if not same and pair in said:
            text = f"`{pair}` gives {value.item():.2f} where the cross entropy is {wanted.item():.2f}."
            raise Wrong(text, ask="Which of logarithm and softmax does the loss do itself?")


_SAME_ASKS = {
    "logits + cross_entropy": "What does `cross_entropy` do first with what it is given?",
    "log_softmax + nll_loss": "What of the cross entropy is done already, and what does `nll_loss` add?",
    "log_softmax + cross_entropy": "What is log_softmax of numbers whose exponentials sum up to 1 already?",
}


def _same_loss_as_list():
    return ["log_softmax + nll_loss", "logits + cross_entropy", "log_softmax + cross_entropy"]


def _textbook_pairs():
    return {"logits + cross_entropy", "log_softmax + nll_loss"}


def _probabilities_in_cross_entropy():
    return {"softmax + cross_entropy", "log_softmax + nll_loss"}


def _logits_in_nll():
    return {
        "logits + cross_entropy",
        "log_softmax + cross_entropy",
        "log_softmax + nll_loss",
        "logits + nll_loss",
    }


def _negative_log_of_probabilities():
    return {
        "logits + cross_entropy",
        "log_softmax + nll_loss",
        "log_softmax + cross_entropy",
        "softmax + nll_loss",
    }


@exercise(
    check=check_same_loss,
    hints=[
        "`cross_entropy` is `nll_loss` of `log_softmax`. `nll_loss` itself has no logarithm in it.",
        "`log_softmax` takes away the logarithm of the sum of exponentials. For log-probabilities that is 0.",
    ],
    also_right=[_same_loss_as_list],
    mistakes=[
        Mistake(_textbook_pairs, says="`log_softmax + cross_entropy` is the cross entropy as well"),
        Mistake(_probabilities_in_cross_entropy, says="`logits + cross_entropy` is the cross entropy as well"),
        Mistake(_logits_in_nll, says="`logits + nll_loss` gives"),
        Mistake(_negative_log_of_probabilities, says="`softmax + nll_loss` gives"),
    ],
    remember="Let the model return logits; cross_entropy does the rest.",
)
def same_loss() -> set[str]:
    """Predict: which of these pairs of last layer and loss give the cross entropy?

    "logits + cross_entropy", "softmax + cross_entropy", "log_softmax + cross_entropy",
    "logits + nll_loss", "softmax + nll_loss", "log_softmax + nll_loss".
    """
    return {"logits + cross_entropy", "log_softmax + cross_entropy", "log_softmax + nll_loss"}


# --- squared_error


def check_squared_error(answer):
    """The loss for 4, 3 and 1 images of 3 classes, counted one by one; the labels afterwards."""
    for labels in ([0, 2, 1, 0], [2, 0, 1], [1]):
        outputs, given, images = torch.rand(len(labels), 3), torch.tensor(labels), plural(len(labels), "image")
        squares = [(outputs[i, c].item() - (c == y)) ** 2 for i, y in enumerate(labels) for c in range(3)]
        try:
            value = as_number(answer(outputs, given), "loss")
        except Raised as raised:
            ask = "Which shape do the outputs have, and which the targets?"
            raise Wrong(f"With {images}: {raised.message}", ask=ask) from None
        wanted = sum(squares) / len(squares)
        if not abs(value - wanted) <= 1e-5:
            text = f"With {images} you found {value:.3f}; counted one by one it is {wanted:.3f}."
            raise Wrong(text, ask="Which number is compared with which, and of how many squares is it the mean?")
        if given.tolist() != labels:
            raise Wrong("The caller's own labels are changed.", ask="Which method works in place?")


def _numbers_as_targets(outputs, labels):
    return nn.functional.mse_loss(outputs, labels.float())


def _squared_by_hand(outputs, labels):
    hot = torch.zeros_like(outputs)
    hot[torch.arange(len(labels)), labels] = 1
    return (outputs - hot).square().mean()


def _numbers_in_a_column(outputs, labels):
    return F.mse_loss(outputs, labels.unsqueeze(1).float().expand(-1, outputs.shape[1]))


def _sum_of_squares(outputs, labels):
    return F.mse_loss(outputs, F.one_hot(labels, outputs.shape[1]).float(), reduction="sum")


def _one_hot_that_guesses(outputs, labels):
    return F.mse_loss(outputs, F.one_hot(labels).float())


def _predicted_numbers(outputs, labels):
    return F.mse_loss(outputs.argmax(1).float(), labels.float())


@exercise(
    check=check_squared_error,
    broken=_numbers_as_targets,
    hints=[
        "Try it with 3 images, and with 4. In which case are you told?",
        "Class 2 is not twice class 1. What should the outputs be for an image of class 2?",
        "`nn.functional.one_hot(labels, number_of_classes)`, as floats.",
    ],
    also_right=[_squared_by_hand],
    mistakes=[
        Mistake(_numbers_in_a_column, says="counted one by one it is"),
        Mistake(_sum_of_squares, says="counted one by one it is"),
        Mistake(_one_hot_that_guesses, says="With 1 image: It raised"),
        Mistake(_predicted_numbers, says="counted one by one it is"),
    ],
    remember="Squared error wants one number per output; shapes that only happen to fit are broadcast.",
)
def squared_error(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Repair: return the mean squared error of `outputs` (N, classes) against the class numbers `labels` (N,).

    The right output for an image is 1 for its class and 0 for all others.
    """
    targets = nn.functional.one_hot(labels, outputs.shape[1]).float()
    return nn.functional.mse_loss(outputs, targets)
