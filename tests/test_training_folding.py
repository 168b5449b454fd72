"""The frozen part, made fast: it gives the same, with fewer steps and copies, and the model is not changed."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ftlab import pretrained
from ftlab.pretrained.lite import SamePaddingConv2d
from ftlab.random_state import keep_random_state
from ftlab.training.caching.folding import WideKernel, fast
from ftlab.training.caching.prefix import split


class Calls(TorchDispatchMode):
    """The names of the operations that run inside."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def images(size, seed=0):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def frozen_and_fast(size):
    """Return the frozen part of EfficientNet-Lite0, and the same made fast on images of this size."""
    model = pretrained.load(num_classes=8)
    model.features.requires_grad_(False).eval()
    prefix = split(model, images(size)).prefix
    with torch.no_grad():
        return prefix, fast(prefix, images(size), prefix(images(size)))


def calls(module, given):
    with torch.no_grad(), Calls() as found:
        module(given)
    return found.names


def test_what_is_fast_gives_the_same_with_fewer_steps():
    prefix, quick = frozen_and_fast(64)
    with torch.no_grad():
        torch.testing.assert_close(quick(images(64, 1)), prefix(images(64, 1)), rtol=1e-3, atol=1e-3)
    slow, few = calls(prefix, images(64)), calls(quick, images(64))
    assert "constant_pad_nd" in slow
    assert "constant_pad_nd" not in few
    assert any("batch_norm" in name for name in slow)
    assert not any("batch_norm" in name for name in few)


def test_images_of_another_size_than_those_it_was_made_with_are_right_too():
    prefix, quick = frozen_and_fast(64)
    for size in (57, 63, 70):
        with torch.no_grad():
            torch.testing.assert_close(quick(images(size)), prefix(images(size)), rtol=1e-3, atol=1e-3)


def test_the_frozen_part_itself_is_not_changed():
    model = pretrained.load(num_classes=8)
    model.features.requires_grad_(False).eval()
    prefix = split(model, images(64)).prefix
    before, code = copy.deepcopy(model.state_dict()), prefix.code
    with torch.no_grad():
        fast(prefix, images(64), prefix(images(64)))
    assert prefix.code == code
    assert not any(isinstance(module, WideKernel) for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert tensor.stride() == before[name].stride(), name


def test_where_it_would_give_anything_else_nothing_is_made_fast():
    prefix, quick = frozen_and_fast(64)
    assert quick is not prefix
    with torch.no_grad():
        (expected,) = prefix(images(64))
        assert fast(prefix, images(64), (expected + 1,)) is prefix


@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.tuples(st.sampled_from([3, 5, 7]), st.sampled_from([3, 5, 7])),
    depthwise=st.booleans(),
    bias=st.booleans(),
)
def test_a_wide_kernel_gives_what_its_convolution_gives(size, kernel, depthwise, bias):
    with keep_random_state(seed=0):
        conv = SamePaddingConv2d(2, 4, kernel, 2, groups=2 if depthwise else 1, bias=bias).double()
        given_images = torch.randn(2, 2, *size, dtype=torch.float64)
    torch.testing.assert_close(WideKernel(conv)(given_images), conv(given_images))


@pytest.mark.parametrize(
    "options", [{"kernel_size": 1, "stride": 2}, {"stride": 1}, {"stride": (2, 1)}, {"stride": 2, "dilation": 2}]
)
def test_other_convolutions_keep_their_kernel(options):
    with keep_random_state(seed=0):
        model = nn.Sequential(
            SamePaddingConv2d(3, 4, **({"kernel_size": 3} | options)), nn.Flatten(), nn.LazyLinear(2)
        )
        model(images(8))
    model[0].requires_grad_(False)
    prefix = split(model, images(8)).prefix
    with torch.no_grad():
        quick = fast(prefix, images(8), prefix(images(8)))
    assert quick is not prefix
    assert not any(isinstance(module, WideKernel) for module in quick.modules())


class Shared(nn.Module):
    """A convolution and a batch norm behind it; `kind` says what else uses them."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv, self.norm, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 2)

    def forward(self, images):
        out = self.conv(images)
        if self.kind == "conv twice":
            out = self.norm(out) + self.other(self.conv(out))
        elif self.kind == "norm twice":
            out = self.norm(self.norm(out))
        elif self.kind == "output twice":
            out = self.norm(out) + out
        else:
            out = self.norm(out)
        return self.head(out.mean((2, 3)))


@pytest.mark.parametrize("kind", ["conv twice", "norm twice", "output twice", "once"])
def test_a_norm_is_folded_only_where_it_is_alone_behind_its_convolution(kind):
    with keep_random_state(seed=0):
        model = Shared(kind)
        for norm in (model.norm, model.other):
            nn.init.uniform_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    model.requires_grad_(False).head.requires_grad_(True)
    model.eval()
    prefix = split(model, images(8)).prefix
    with torch.no_grad():
        quick = fast(prefix, images(8), prefix(images(8)))
    assert quick is not prefix  # what is folded wrongly gives something else, and is not taken
    assert any("batch_norm" in name for name in calls(quick, images(8))) == (kind != "once")
