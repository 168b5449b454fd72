"""What a loop keeps, batch by batch."""

import pytest
import torch
from torch import nn

from ftlab.training import memory_growth

MODEL = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
BATCHES = list(torch.ones(8, 16, 64))


def loop(add):
    def run(batches):
        total = 0
        for rows in batches:
            total = add(total, MODEL(rows).square().mean())
        return total

    return run


def keep_graphs(total, loss):
    return total + loss


def keep_numbers(total, loss):
    return total + loss.item()


def test_graphs_are_counted_byte_by_byte():
    found = memory_growth(loop(keep_graphs), BATCHES)
    # kept for backward: the output of tanh (16 x 64) and of the last layer (16 x 2), 4 bytes each
    assert found.per_batch == 4 * 16 * (64 + 2)
    assert found.kept == [found.per_batch * count for count in (1, 2, 4)]
    assert found.grows
    assert "each further batch keeps" in repr(found)


@pytest.mark.parametrize("add", [keep_numbers, lambda total, loss: total + loss.detach()], ids=["item", "detach"])
def test_numbers_keep_nothing(add):
    found = memory_growth(loop(add), BATCHES)
    assert found.kept == [0, 0, 0]
    assert not found.grows
    assert "it does not grow" in repr(found)


def test_what_is_returned_is_not_held_against_the_loop():
    found = memory_growth(lambda batches: torch.cat([rows * 2 for rows in batches]), BATCHES)
    assert not found.grows


def test_the_random_state_is_as_it_was():
    before = torch.get_rng_state()
    memory_growth(lambda batches: [torch.rand(2) for _ in batches], BATCHES)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_is_not_changed():
    before = {name: tensor.clone() for name, tensor in MODEL.state_dict().items()}
    memory_growth(loop(keep_graphs), BATCHES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in MODEL.state_dict().items())
    assert all(parameter.grad is None for parameter in MODEL.parameters())


@pytest.mark.parametrize(
    ("counts", "says"),
    [((1,), "two or more rising"), ((2, 1), "two or more rising"), ((0, 1), "from 1"), ((1, 9), "8 are there")],
)
def test_counts_that_make_no_sense_are_refused(counts, says):
    with pytest.raises(ValueError, match=says):
        memory_growth(loop(keep_numbers), BATCHES, counts=counts)


def test_the_result_is_a_table_and_a_dictionary():
    found = memory_growth(loop(keep_graphs), BATCHES, counts=(1, 3))
    assert found.to_dict()["batches"] == [1, 3]
    assert found.to_dict()["per_batch"] == found.per_batch
    assert "<table>" in found._repr_html_()
