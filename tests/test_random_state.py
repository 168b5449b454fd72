"""Random numbers of a thread of its own: the same as torch would draw, and nobody notices."""

import threading

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ftlab.random_state import keep_random_state, outer_random_state, own_random_state, torch_random_state


def shuffled():
    ((batch,),) = DataLoader(TensorDataset(torch.arange(20)), batch_size=20, shuffle=True)
    return batch


DRAWS = {
    "a new layer": lambda: nn.Linear(3, 3).weight.detach().clone(),
    "a new convolution": lambda: nn.Conv2d(3, 2, 3).bias.detach().clone(),
    "xavier": lambda: nn.init.xavier_normal_(torch.empty(3, 3)),
    "truncated": lambda: nn.init.trunc_normal_(torch.empty(9)),
    "dropout": lambda: nn.Dropout(0.3)(torch.ones(7, 5)),
    "dropout in place": lambda: nn.Dropout(0.5, inplace=True)(torch.ones(50)),
    "dropout, channels last": lambda: nn.Dropout(0.5)(
        torch.ones(2, 8, 3, 3).to(memory_format=torch.channels_last)
    ),
    "dropout of channels": lambda: nn.Dropout2d(0.4)(torch.ones(3, 8, 2, 2)),
    "dropout of channels, 1d": lambda: nn.Dropout1d(0.4)(torch.ones(3, 8, 2)),
    "stochastic depth": lambda: torchvision.ops.stochastic_depth(torch.ones(30, 2), 0.5, "row"),
    "rand": lambda: torch.rand(3),
    "randn": lambda: torch.randn(2, 2),
    "randperm": lambda: torch.randperm(20),
    "randint": lambda: torch.randint(99, (9,)),
    "bernoulli": lambda: torch.full((30,), 0.5).bernoulli(),
    "multinomial": lambda: torch.multinomial(torch.ones(30), 9),
    "a loader": shuffled,
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_with_the_same_seed_the_numbers_are_those_of_torch(draw):
    with keep_random_state(seed=5):
        first, second = draw(), draw()
        before = torch.get_rng_state()
        with own_random_state(5):
            assert torch.equal(draw(), first)
            assert torch.equal(draw(), second)
        assert torch.equal(torch.get_rng_state(), before)
    with own_random_state(6):
        assert not torch.equal(draw(), first)


@pytest.mark.parametrize("layer", [nn.Dropout(0.0), nn.Dropout(1.0), nn.Dropout(0.5).eval()])
def test_a_dropout_that_decides_nothing_gives_what_it_always_gives(layer):
    with own_random_state(5):
        assert torch.equal(layer(torch.ones(4)), torch.zeros(4) if layer.p == 1 else torch.ones(4))


def test_a_dropout_of_the_own_state_has_gradients():
    values = torch.ones(100, requires_grad=True)
    with own_random_state(0):
        nn.Dropout(0.5)(values).sum().backward()
    assert set(values.grad.tolist()) == {0.0, 2.0}


def test_kept_inside_it_is_the_own_state_that_is_set_and_put_back():
    with keep_random_state(seed=1):
        outside = torch.get_rng_state()
        with own_random_state(5):
            first = torch_random_state()
            with keep_random_state(seed=3):
                inside = torch.rand(2)
            assert torch_random_state() == first
            with keep_random_state():
                torch.rand(2)
            assert torch_random_state() == first
        assert torch.equal(torch.get_rng_state(), outside)
    with keep_random_state(seed=3):
        assert torch.equal(torch.rand(2), inside)


def test_one_may_go_out_for_a_while():
    with keep_random_state(seed=1), own_random_state(5):
        with outer_random_state():
            outer = torch.rand(2)
        own = torch.rand(2)
    with keep_random_state(seed=1):
        assert torch.equal(torch.rand(2), outer)
    with keep_random_state(seed=5):
        assert torch.equal(torch.rand(2), own)


def test_two_threads_do_not_disturb_each_other():
    """They take turns; without a state of its own, what the one puts back would be what the other has drawn."""
    with keep_random_state(seed=7):
        expected = [torch.rand(2), torch.rand(2)]
    begun, turn, drawn = threading.Event(), threading.Event(), []

    def other():
        with own_random_state(0), keep_random_state(seed=7):
            drawn.append(torch.rand(2))
            begun.set()
            assert turn.wait(600)
            drawn.append(torch.rand(2))

    with keep_random_state(seed=7):
        thread = threading.Thread(target=other)
        thread.start()
        assert begun.wait(600)
        mine = [torch.rand(2)]
        turn.set()
        thread.join(600)
        mine.append(torch.rand(2))
    for pair in (drawn, mine):
        assert all(map(torch.equal, pair, expected))
