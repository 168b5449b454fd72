"""Every classification model of torchvision: looking changes nothing, and the counts are torchvision's own."""

import warnings

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torchvision import models

from ftlab.summary import summarize

GIGA = 1e9
TOLERANCE = 0.0006  # torchvision gives three decimals


class _OnlyEmptyOnMeta(TorchFunctionMode):
    """Put what layers allocate on the meta device, and leave the numbers that RegNet computes with."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return func(*args, **({**kwargs, "device": "meta"} if func is torch.empty else kwargs))


def build(name):
    with _OnlyEmptyOnMeta(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of GoogLeNet and Inception
        model = models.get_model(name, weights=None)
    return model.to("meta")


def entry(name):
    """Return weights whose numbers belong to the model as it is built; those of ViT-H/14 at 518 pixels do not."""
    side = getattr(build(name), "image_size", None)
    return next(w for w in models.get_model_weights(name) if side in (None, w.transforms().crop_size[0]))


def state(model):
    """Everything that a look must not change; the version of a tensor counts the writes to it."""
    tensors = [*model.parameters(), *model.buffers()]
    return {
        "tensors": [(id(t), t._version, t.requires_grad, t.device) for t in tensors],
        "gradients": [id(p.grad) for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "random": torch.get_rng_state().tolist(),
    }


@pytest.mark.parametrize("name", models.list_models(module=models))
def test_looking_changes_nothing_and_the_counts_are_torchvisions(name):
    model, weights = build(name).eval(), entry(name)
    for place, module in enumerate(model.modules()):  # modes as they come, each to be left as it is
        module.training = place % 2 == 0
    model.training = False  # GoogLeNet and Inception call their second heads in train mode
    before = state(model)
    size = weights.transforms().crop_size[0]
    found = summarize(model, (1, 3, size, size))
    assert state(model) == before
    assert found.multiply_adds / GIGA == pytest.approx(weights.meta["_ops"], abs=TOLERANCE)
    assert found.total_params == sum(p.numel() for p in model.parameters())
    assert sum(row.own_parameters for row in found.rows) == found.total_params
    assert sum(row.own_multiply_adds for row in found.rows) == found.multiply_adds
    assert sum(row.own_activations for row in found.rows) == found.activations


def test_a_real_look_would_be_seen():
    model = models.resnet18()
    before = state(model)
    model(torch.rand(2, 3, 32, 32))
    assert state(model)["tensors"] != before["tensors"]
    assert state(model)["random"] != before["random"]


def test_a_wrong_count_would_be_seen():
    found = summarize(build("resnet18"), (1, 3, 225, 225))  # one pixel more
    assert found.multiply_adds / GIGA != pytest.approx(
        models.ResNet18_Weights.DEFAULT.meta["_ops"], abs=TOLERANCE
    )
