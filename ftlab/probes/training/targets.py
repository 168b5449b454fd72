"""Targets, and the losses that take them."""

import warnings

import torch
from torch.nn import functional as F

from ftlab.probes import probe
from ftlab.probes._outcomes import raises, warns


def _logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(4, 3), torch.tensor([2, 0, 1, 1])


@probe("`cross_entropy` takes class numbers, or one float per class, and both give the same.")
def class_numbers_or_floats() -> bool:
    logits, labels = _logits_and_labels()
    hot = F.one_hot(labels, 3).float()
    return torch.allclose(F.cross_entropy(logits, labels), F.cross_entropy(logits, hot))


@probe("`cross_entropy` refuses a one-hot of whole numbers, class numbers as floats, and class numbers (N, 1).")
def refused_targets() -> bool:
    logits, labels = _logits_and_labels()
    refused = (F.one_hot(labels, 3), labels.float(), labels.unsqueeze(1))
    return all(raises(RuntimeError, lambda t=targets: F.cross_entropy(logits, t)) for targets in refused)


@probe("Smoothed targets, with the amount shared out among all classes, are what `label_smoothing` does.")
def smoothing_by_hand() -> bool:
    logits, labels = _logits_and_labels()
    soft = 0.9 * F.one_hot(labels, 3) + 0.1 / 3
    return torch.allclose(F.cross_entropy(logits, soft), F.cross_entropy(logits, labels, label_smoothing=0.1))


@probe("`one_hot` without a number of classes guesses it from the largest label.")
def one_hot_guesses() -> bool:
    labels = torch.tensor([0, 1])
    return F.one_hot(labels).shape == (2, 2) and F.one_hot(labels, 3).shape == (2, 3)


@probe("`resize_` works in place: the caller's labels have another shape afterwards.")
def resize_is_in_place() -> bool:
    labels = torch.tensor([2, 0, 1])
    labels.resize_(3, 1)
    return labels.shape == (3, 1) and raises(RuntimeError, lambda: F.cross_entropy(torch.zeros(3, 3), labels))


@probe("`resize_` to a fixed size adds labels that nobody gave, or cuts some off; nothing is raised.")
def resize_makes_labels_up() -> bool:
    longer, shorter = torch.tensor([2, 0]).resize_(4, 1), torch.tensor([2, 0, 1]).resize_(2, 1)
    return longer.numel() == 4 and longer[:2].flatten().tolist() == shorter.flatten().tolist() == [2, 0]


@probe("A softmax before `cross_entropy` gives the loss a floor: 0.31 for 2 classes, 5.91 for 1000.")
def softmax_has_a_floor() -> bool:
    found = []
    for classes in (2, 1000):
        perfect = F.one_hot(torch.tensor([0]), classes).float()  # the surest and rightest probabilities
        found.append(F.cross_entropy(perfect, torch.tensor([0])).item())
    return [round(value, 4) for value in found] == [0.3133, 5.9095]


@probe("A log-softmax before `cross_entropy` changes nothing: the same loss, the same gradients.")
def log_softmax_twice() -> bool:
    logits, labels = _logits_and_labels()
    logits.requires_grad_()
    losses = F.cross_entropy(logits, labels), F.cross_entropy(logits.log_softmax(1), labels)
    gradients = [torch.autograd.grad(loss, [logits])[0] for loss in losses]
    return torch.allclose(*losses) and torch.allclose(*gradients, atol=1e-6)


@probe("`nll_loss` on logits can be negative.")
def nll_of_logits_is_negative() -> bool:
    return F.nll_loss(torch.tensor([[9.0, 0.0]]), torch.tensor([0])).item() == -9


@probe("`cross_entropy` of one column is 0, whatever is in it.")
def one_column_is_zero() -> bool:
    return F.cross_entropy(torch.randn(5, 1), torch.zeros(5, dtype=torch.long)).item() == 0


@probe(
    "`mse_loss` broadcasts class numbers if there are as many images as classes, with a warning; else it raises."
)
def mse_broadcasts() -> bool:
    def loss(images: int) -> torch.Tensor:
        return F.mse_loss(torch.rand(images, 3), torch.arange(images) % 3)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refuses = raises(RuntimeError, lambda: loss(4))
    return refuses and warns(lambda: loss(3))
