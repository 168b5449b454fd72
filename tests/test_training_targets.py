"""Outputs, targets and loss: what `check_targets` says is what PyTorch then does."""

import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ftlab.training import check_targets

torch.manual_seed(0)
LOGITS, LABELS = torch.randn(8, 3), torch.tensor([2, 0, 1, 1, 0, 2, 2, 1])
HOT = F.one_hot(LABELS, 3)

FIT = {
    "class numbers": (LOGITS, LABELS, F.cross_entropy),
    "bytes": (LOGITS, LABELS.byte(), F.cross_entropy),
    "one-hot floats": (LOGITS, HOT.float(), F.cross_entropy),
    "smoothed": (LOGITS, 0.9 * HOT + 0.1 / 3, nn.CrossEntropyLoss(label_smoothing=0.1)),
    "log-probabilities": (LOGITS.log_softmax(1), LABELS, nn.NLLLoss()),
    "squares": (LOGITS, HOT.float(), F.mse_loss),
    "absolute": (LOGITS, HOT.float(), nn.L1Loss()),
    "two classes": (LOGITS[:, :1], (LABELS > 0).float().unsqueeze(1), nn.BCEWithLogitsLoss()),
}
RAISE = {
    "float numbers": (LOGITS, LABELS.float(), F.cross_entropy, "class numbers of type torch.float32"),
    "int32": (LOGITS, LABELS.int(), F.cross_entropy, "class numbers of type torch.int32"),
    "a column": (LOGITS, LABELS.unsqueeze(1), F.cross_entropy, r"targets of shape \(8, 1\)"),
    "int one-hot": (LOGITS, HOT, F.cross_entropy, "one-hot targets of type torch.int64"),
    "out of range": (LOGITS, LABELS + 1, F.cross_entropy, "class numbers 1 to 3 for 3 outputs"),
    "negative": (LOGITS, LABELS - 1, F.nll_loss, "class numbers -1 to 1 for 3 outputs"),
    "too few": (LOGITS, LABELS[:4], F.cross_entropy, r"outputs \(8, 3\) and targets \(4,\)"),
    "numbers in mse": (LOGITS, LABELS.float(), F.mse_loss, r"outputs \(8, 3\) and targets \(8,\)"),
    "shapes in bce": (
        LOGITS[:, :1], (LABELS > 0).float(), F.binary_cross_entropy_with_logits, r"outputs \(8, 1\) and",
    ),
    "whole numbers in bce": (
        LOGITS[:, 0], (LABELS > 0).long(), F.binary_cross_entropy_with_logits, "targets of type torch.int64",
    ),
}  # fmt: skip
SILENT = {
    "softmax": (LOGITS.softmax(1), LABELS, F.cross_entropy, "the outputs are probabilities"),
    "one column": (LOGITS[:, :1], torch.zeros(8).long(), F.cross_entropy, "one column of outputs"),
    "logits in nll": (LOGITS, LABELS, F.nll_loss, "the outputs are scores, no log-probabilities"),
    "softmax in nll": (LOGITS.softmax(1), LABELS, F.nll_loss, "the outputs are probabilities, no log"),
    "broadcast": (LOGITS[:3], LABELS[:3].float(), F.mse_loss, r"outputs \(3, 3\) and targets \(3,\)"),
    "unequal rows": (LOGITS, 2 * HOT.float(), F.cross_entropy, "target rows that are no probabilities"),
    "sigmoid": (
        LOGITS[:, 0].sigmoid(), (LABELS > 0).float(), nn.BCEWithLogitsLoss(), "all outputs are from 0 to 1",
    ),
    "class 2 in bce": (
        LOGITS[:, 0], LABELS.float(), F.binary_cross_entropy_with_logits, "targets from 0 to 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FIT)
def test_what_fits_is_computed_and_nothing_is_said(case):
    outputs, targets, loss = FIT[case]
    found = check_targets(outputs, targets, loss)
    assert found.ok, found
    assert found.misfits == []
    assert loss(outputs, targets).isfinite()


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("case", RAISE)
def test_what_pytorch_refuses_is_said_before(case):
    outputs, targets, loss, says = RAISE[case]
    found = check_targets(outputs, targets, loss)
    assert not found.ok
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        loss(outputs, targets)
    assert any(re.match(says, misfit.what) for misfit in found.misfits), found


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("case", SILENT)
def test_what_pytorch_takes_in_silence_is_said(case):
    outputs, targets, loss, says = SILENT[case]
    found = check_targets(outputs, targets, loss)
    assert not found.ok
    loss(outputs, targets)  # nothing is raised
    assert any(re.match(says, misfit.what) for misfit in found.misfits), found


def test_the_repairs_for_one_hot_and_columns_are_right():
    wanted = F.cross_entropy(LOGITS, LABELS)
    assert torch.allclose(F.cross_entropy(LOGITS, HOT.float()), wanted)
    assert torch.allclose(F.cross_entropy(LOGITS, HOT.argmax(1)), wanted)
    assert torch.allclose(F.cross_entropy(LOGITS, LABELS.unsqueeze(1).squeeze(1)), wanted)


@pytest.mark.parametrize("classes", [2, 8])
def test_the_floor_of_a_softmax_too_many_is_the_real_one(classes):
    perfect = F.one_hot(torch.arange(classes), classes).float()
    found = check_targets(perfect, torch.arange(classes))
    assert f"{F.cross_entropy(perfect, torch.arange(classes)).item():.2f}" in found.misfits[0].why
    assert math.isclose(
        F.cross_entropy(perfect, torch.arange(classes)), math.log(math.e + classes - 1) - 1, abs_tol=1e-5
    )


def test_log_softmax_twice_is_named_as_harmless():
    found = check_targets(LOGITS.log_softmax(1), LABELS)
    assert found.ok
    assert "(harmless)" in repr(found)


def test_nothing_is_changed_and_no_graph_is_kept():
    outputs, targets = LOGITS.clone().requires_grad_(), LABELS.clone()
    check_targets(outputs.softmax(1), targets)
    assert outputs.grad is None
    assert torch.equal(targets, LABELS)
    assert torch.equal(outputs.detach(), LOGITS)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match=r"nothing is known about the loss 'huber_loss'.*cross_entropy"):
        check_targets(LOGITS, LABELS, F.huber_loss)


def test_the_result_is_a_table_and_a_dictionary():
    found = check_targets(LOGITS.softmax(1), LABELS)
    assert found.to_dict()["misfits"][0]["repair"] == "the logits, without softmax"
    assert "<table>" in found._repr_html_()
    assert repr(check_targets(LOGITS, LABELS)).strip() == "outputs and targets fit cross_entropy"
