"""What keeps memory, and what gives it back."""

import torch
from torch import nn

from ftlab.modes import memory_of
from ftlab.probes import probe


def _network() -> nn.Module:
    return nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.Tanh())], nn.Linear(64, 2))


def _kept(add, count: int) -> int:
    """Return the bytes that a sum over so many batches keeps."""
    model, rows = _network(), torch.randn(32, 64)
    model(rows).sum().backward()  # the gradients are there before

    def loop(numbers) -> object:
        total = 0
        for _ in range(numbers):
            total = add(total, model(rows).square().mean())
        return total

    return memory_of(loop, count)[0]


@probe("`total += loss` without a backward pass keeps the activations of every batch; `.item()` keeps none.")
def losses_keep_graphs() -> bool:
    tensors = [_kept(lambda total, loss: total + loss, count) for count in (1, 4)]
    numbers = [_kept(lambda total, loss: total + loss.item(), count) for count in (1, 4)]
    return tensors[1] == 4 * tensors[0] > 0 and numbers == [0, 0]


@probe("After `backward` the activations are gone, also if the loss is kept.")
def backward_frees() -> bool:
    def add(total, loss):
        loss.backward()
        return total + loss

    return _kept(add, 4) == 0


@probe(
    "Without `no_grad` the last batch's graph is alive during the next forward pass: `del` or `no_grad` end it."
)
def two_graphs_are_alive() -> bool:
    model, rows = _network(), torch.randn(32, 64)

    def loop(delete: bool):
        def run(numbers) -> None:
            for _ in range(numbers):
                loss = model(rows).square().mean()
                if delete:
                    del loss

        return run

    kept, deleted = (memory_of(loop(delete), 3)[1] for delete in (False, True))
    none = memory_of(loop(False), 3, torch.no_grad)[1]
    return kept > 1.5 * deleted and none < deleted


@probe("A tensor is freed with its last name; `empty_cache` frees none, and is no error without a GPU.")
def tensors_are_freed_at_once() -> bool:
    def forget(rows) -> None:
        rows.exp()

    def keep(rows) -> torch.Tensor:
        made = rows.exp()
        torch.cuda.empty_cache()
        return made.view(-1)[:0]  # a view of all of it

    rows = torch.ones(1000)
    return memory_of(forget, rows)[0] == 0 and memory_of(keep, rows)[1] == 4000
