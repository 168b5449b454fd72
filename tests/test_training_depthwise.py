"""The other backward of depthwise convolutions: the gradients of PyTorch's own, and only where it is quicker."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ftlab import pretrained
from ftlab.training import cached, loader
from ftlab.training.caching.depthwise import Depthwise, QuickDepthwise, weight_gradient

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


def drawn(size, kernel=(5, 5), channels=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, channels, *size, dtype=dtype, generator=generator)
    weight = torch.randn(channels, 1, *kernel, dtype=dtype, generator=generator)
    return images.to(memory_format=torch.channels_last).requires_grad_(), weight.requires_grad_()


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=PAIRS,
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
def test_the_weight_gradient_is_that_of_pytorch(size, kernel, stride, padding):
    if any(s + 2 * p < k for s, p, k in zip(size, padding, kernel, strict=True)):
        return  # no output at all: PyTorch refuses
    images, weight = drawn(size, kernel)
    output = F.conv2d(images, weight, None, stride, padding, groups=3)
    gradient = torch.randn(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(1))
    (expected,) = torch.autograd.grad(output, weight, gradient)
    torch.testing.assert_close(weight_gradient(images, weight, gradient, stride, padding), expected)


def test_every_gradient_is_right_once_and_twice():
    images, weight = drawn((4, 3), kernel=(5, 3))
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def run(*tensors):
        return Depthwise.apply(*tensors, (2, 1), (2, 1))

    assert torch.autograd.gradcheck(run, (images, weight, bias))
    assert torch.autograd.gradgradcheck(run, (images, weight, bias))


def test_what_needs_no_gradient_gets_none():
    images, weight = drawn((4, 4))
    output = Depthwise.apply(images.detach(), weight, None, (1, 1), (2, 2))
    output.sum().backward()
    assert images.grad is None
    assert weight.grad is not None


def name_of_backward(images, weight, **options):
    options = {"padding": 2, "groups": 3} | options
    with QuickDepthwise():
        output = F.conv2d(images, weight, **options)
    return output.grad_fn.name() if output.grad_fn else None


def test_it_is_taken_where_it_is_quicker():
    assert name_of_backward(*drawn((6, 6))) == "DepthwiseBackward"
    assert name_of_backward(*drawn((20, 20)), stride=2) == "DepthwiseBackward"


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda images, weight: (images.detach(), weight.detach()), {}),
        (lambda images, weight: (images, weight.detach()), {}),
        (lambda images, weight: (images.contiguous(), weight), {}),
        (lambda images, weight: (images, weight[..., 1:4, 1:4]), {"padding": 1}),
        (lambda images, weight: drawn((20, 20)), {}),
        (lambda images, weight: (images, weight), {"dilation": 2, "padding": 4}),
        (lambda images, weight: (images, weight), {"padding": "same"}),
        (lambda images, weight: (images, weight.expand(-1, 3, -1, -1)), {"groups": 1}),
        (lambda images, weight: (images, torch.cat([weight, weight])), {}),
        (lambda images, weight: (images[0], weight), {}),
    ],
    ids=[
        "no_gradient",
        "weight_frozen",
        "channels_first",
        "small_kernel",
        "large_map",
        "dilated",
        "same",
        "dense",
        "twice_as_many",
        "one",
    ],
)
def test_else_pytorchs_own_is_taken(change, options):
    assert name_of_backward(*change(*drawn((6, 6))), **options) != "DepthwiseBackward"


def test_in_another_precision_pytorchs_own_is_taken():
    images, weight = drawn((6, 6), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert name_of_backward(images, weight) != "DepthwiseBackward"
        with torch.no_grad():
            assert name_of_backward(images, weight) is None


def test_the_rest_of_a_cut_network_uses_it_and_gets_the_same_gradients():
    torch.manual_seed(0)
    model = pretrained.load(num_classes=3).eval()
    model.features[:6].requires_grad_(False)
    pictures = torch.utils.data.TensorDataset(torch.randn(4, 3, 96, 96), torch.tensor([0, 1, 2, 0]))
    rest = cached(model, loader(pictures, batch_size=4), progress=False)
    activations, _ = next(iter(rest.train))
    found = gradients(model, rest.model(activations))
    assert "DepthwiseBackward" in backwards(rest.model(activations))
    plain = model(pictures.tensors[0])
    assert "DepthwiseBackward" not in backwards(plain)
    expected = gradients(model, plain)
    for name, value in expected.items():
        size = value.abs().max().item()
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4 * size, msg=name)


def gradients(model: nn.Module, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    chosen = {name: p for name, p in model.named_parameters() if p.requires_grad}
    values = torch.autograd.grad(logits.square().sum(), list(chosen.values()))
    return dict(zip(chosen, values, strict=True))


def backwards(output: torch.Tensor) -> set[str]:
    """Return the names of all steps that backward would take."""
    names, todo, seen = set(), [output.grad_fn], set()
    while todo:
        step = todo.pop()
        if step is not None and step not in seen:
            seen.add(step)
            names.add(step.name())
            todo += [each for each, _ in step.next_functions]
    return names
