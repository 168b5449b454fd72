"""Where the gradients of several copies meet, and which training is the same one."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.exercises.core import Mistake, Wrong, exercise


def check_whole_batch_gradient(answer):
    """Gradients of shares of equal and of unequal size, against the gradient of all images in one batch."""
    for counts in ([4, 4], [5, 3], [1, 6, 2]):
        model = nn.Linear(3, 2)
        images, targets = torch.randn(sum(counts), 3), torch.randint(2, (sum(counts),))
        shares = zip(images.split(counts), targets.split(counts), strict=True)
        gradients = [_gradient(model, x, y) for x, y in shares]
        found = answer([gradient.clone() for gradient in gradients], list(counts))
        _expect_gradient(found, _gradient(model, images, targets), gradients, counts)


def _gradient(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return torch.autograd.grad(F.cross_entropy(model(images), targets), model.weight)[0]


def _expect_gradient(found, wanted: Tensor, gradients: list[Tensor], counts: list[int]) -> None:
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        shape = (
            f"of shape `{tuple(found.shape)}`"
            if isinstance(found, Tensor)
            else f"of type `{type(found).__name__}`"
        )
        raise Wrong(
            f"From gradients of shape `{tuple(wanted.shape)}` you made something {shape}.",
            ask="Of what is it the sum?",
        )
    if torch.allclose(found, wanted, atol=1e-6):
        return
    given = f"With {' and '.join(map(str, counts))} images on the ranks"
    ratio = (found * wanted).sum() / (wanted * wanted).sum()
    if torch.allclose(found, ratio * wanted, atol=1e-5):
        text = f"{given}, what you gave is {ratio:.3g} times the gradient of the whole batch."
        raise Wrong(text, ask="Each rank's loss is a mean over its own images. What is the mean over all?")
    if torch.allclose(found, sum(gradients) / len(gradients), atol=1e-6):
        text = f"{given}, an image counts for more where there are fewer of them."
        raise Wrong(text, ask="How much should one image weigh, wherever it lies?")
    raise Wrong(
        f"{given}, what you gave is not the gradient of the whole batch.",
        ask="What does each rank's mean stand for?",
    )


def _stacked(gradients, counts):
    weights = torch.tensor(counts) / sum(counts)
    return torch.tensordot(weights, torch.stack(gradients), dims=1)


def _sum_then_divide(gradients, counts):
    total = torch.zeros_like(gradients[0])
    for gradient, count in zip(gradients, counts, strict=True):
        total += gradient * count
    return total / sum(counts)


def _mean_of_ranks(gradients, counts):
    return sum(gradients) / len(gradients)


def _sum_of_ranks(gradients, counts):
    return sum(gradients)


def _weighted_but_not_divided(gradients, counts):
    return sum(gradient * count for gradient, count in zip(gradients, counts, strict=True))


def _divided_by_the_ranks(gradients, counts):
    return sum(gradient * count for gradient, count in zip(gradients, counts, strict=True)) / len(counts)


def _rank_0_only(gradients, counts):
    return gradients[0]


def _stack_them(gradients, counts):
    return torch.stack(gradients)


@exercise(
    check=check_whole_batch_gradient,
    hints=[
        "DDP takes the mean over the ranks. With 5 images here and 3 there: how much does one image weigh?",
        "A rank's gradient times its number of images is the sum over its images.",
        "Add up these sums, and divide by the number of all images.",
    ],
    also_right=[_stacked, _sum_then_divide],
    mistakes=[
        Mistake(_mean_of_ranks, says="an image counts for more where there are fewer of them"),
        Mistake(_sum_of_ranks, says="what you gave is 2 times the gradient"),
        Mistake(_weighted_but_not_divided, says="what you gave is 8 times the gradient"),
        Mistake(_divided_by_the_ranks, says="what you gave is 4 times the gradient"),
        Mistake(_rank_0_only, says="is not the gradient of the whole batch"),
        Mistake(_stack_them, says="something of shape `(2, 2, 3)`"),
    ],
    remember="DDP averages over ranks, not over images: give the ranks shares of equal size.",
)
def whole_batch_gradient(gradients: list[torch.Tensor], counts: list[int]) -> torch.Tensor:
    """Return the gradient of the whole batch from those of the ranks.

    `gradients[r]` is the gradient of rank r, whose loss is the mean over its own `counts[r]` images.
    """
    return sum(gradient * count for gradient, count in zip(gradients, counts, strict=True)) / sum(counts)


def check_copies_that_learn(answer):
    """The outputs and the gradient of a small model, for parts of equal and unequal size, against one batch."""
    for number, count in ((6, 2), (5, 4), (3, 3)):
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        batch, before = torch.randn(number, 3), copy.deepcopy(model.state_dict())
        found = answer(model, batch, count)
        given = f"With {number} images in {count} parts"
        if not isinstance(found, Tensor) or found.shape != (number, 2):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise Wrong(f"{given} the output is `{shape}`.", ask="How do the parts become one batch again?")
        if not torch.allclose(found, model(batch), atol=1e-5):
            raise Wrong(f"{given} the output is not that of the model.", ask="Which part belongs to which image?")
        if any(not torch.equal(t, before[n]) for n, t in model.state_dict().items()):
            raise Wrong("The model was changed by a forward pass.", ask="Which line writes to it?")
        _expect_learning(model, found, batch, given)


def _expect_learning(model: nn.Module, found: Tensor, batch: Tensor, given: str) -> None:
    parameters = list(model.parameters())
    wanted = torch.autograd.grad(model(batch).square().sum(), parameters)
    if not found.requires_grad:
        raise Wrong(f"{given} the output carries no gradient.", ask="What does autograd know of the way to it?")
    got = torch.autograd.grad(found.square().sum(), parameters, allow_unused=True)
    if all(gradient is None for gradient in got):
        text = f"{given} the output is right, but the parameters of `model` get no gradient from it."
        raise Wrong(text, ask="Whose parameters were used in the forward pass?")
    for gradient, right in zip(got, wanted, strict=True):
        if gradient is None or not torch.allclose(gradient, right, atol=1e-4):
            text = f"{given} only some of the copies pass their gradient on to `model`."
            raise Wrong(text, ask="Which copy is connected with the model, and which is not?")


def _deep_copies(model, batch, count):
    outputs = []
    for part in batch.chunk(count):
        replica = copy.deepcopy(model)
        outputs.append(replica(part))
    return torch.cat(outputs)


def _the_model_itself(model, batch, count):
    return torch.cat([model(part) for part in batch.chunk(count)])


def _parameters_as_results(model, batch, count):
    outputs = []
    for part in batch.tensor_split(count):
        copies = {name: 1 * parameter for name, parameter in model.named_parameters()}
        outputs.append(torch.func.functional_call(model, copies, (part,)))
    return torch.cat(outputs)


def _detached_clones(model, batch, count):
    outputs = []
    for part in batch.chunk(count):
        copies = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        outputs.append(torch.func.functional_call(model, copies, (part,)))
    return torch.cat(outputs)


def _state_dict_clones(model, batch, count):
    outputs = []
    for part in batch.chunk(count):
        replica = copy.deepcopy(model)
        replica.load_state_dict(model.state_dict())
        outputs.append(replica(part))
    return torch.cat(outputs)


def _only_the_first_is_the_model(model, batch, count):
    first, *rest = batch.chunk(count)
    return torch.cat([model(first), *(copy.deepcopy(model)(part) for part in rest)])


def _mean_of_the_outputs(model, batch, count):
    return torch.stack(
        [model(part) for part in batch.chunk(count) if len(part) == len(batch.chunk(count)[0])]
    ).mean(0)


def _reversed(model, batch, count):
    return torch.cat([model(part) for part in batch.chunk(count)][::-1])


@exercise(
    check=check_copies_that_learn,
    broken=_deep_copies,
    hints=[
        "After a backward pass, print `model[0].weight.grad`, and the same of the copy.",
        "A deep copy has parameters of its own. A `clone()` is a result: its gradient goes back to the original.",
        "`torch.func.functional_call(model, parameters, (part,))` runs the model with other tensors.",
    ],
    also_right=[_the_model_itself, _parameters_as_results],
    mistakes=[
        Mistake(_detached_clones, says="carries no gradient"),
        Mistake(_state_dict_clones, says="the parameters of `model` get no gradient"),
        Mistake(_only_the_first_is_the_model, says="only some of the copies"),
        Mistake(_mean_of_the_outputs, says="the output is `(3, 2)`"),
        Mistake(_reversed, says="is not that of the model"),
    ],
    remember="DataParallel's copies are computed from the model, so backward sums their gradients in it.",
)
def copies_that_learn(model: nn.Module, batch: torch.Tensor, count: int) -> torch.Tensor:
    """Repair: run `count` copies of `model` on the parts of `batch`, so that backward reaches `model` itself."""
    outputs = []
    for part in batch.chunk(count):
        copies = {name: parameter.clone() for name, parameter in model.named_parameters()}
        outputs.append(torch.func.functional_call(model, copies, (part,)))
    return torch.cat(outputs)


_REASONS = {
    "the gradient is the mean over the ranks": "",
    "the gradient is the sum over the ranks": "DDP divides by the number of ranks.",
    "each rank makes a step of its own": "All ranks make the same step, with the same gradient.",
}


def check_same_as_one(answer):
    """Three steps of four ranks, computed in one process, against three of the training in the task."""
    value = answer()
    if not isinstance(value, tuple | list) or len(value) != 3 or value[2] not in _REASONS:
        ask = "A number of images, a learning rate, and a reason from the list?"
        raise Wrong("What you gave is not of the three kinds that the task names.", ask=ask)
    images, lr, reason = value
    if not isinstance(images, int) or isinstance(images, bool) or not 1 <= images <= 64:
        raise Wrong(
            f"`{images!r}` is no number of images per process.", ask="How many does each of the four get?"
        )
    if images != 16:
        text = f"With {images} images on each of 4 ranks, a step sees {4 * images} images, and not 64."
        raise Wrong(text, ask="What does `batch_size` of a rank's DataLoader count?")
    if not (apart := (_four_ranks(16, lr) - _one_process()).abs().max()) <= 1e-5:  # a NaN is not
        text = f"After three steps with lr={lr}, a parameter is {apart:.2g} away from that of the one process."
        raise Wrong(text, ask="What does DDP do with the four gradients before the step?")
    if _REASONS[reason]:
        raise Wrong(
            f"The numbers are right, the reason is not. {_REASONS[reason]}", ask="What follows for the rate?"
        )


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, 3, generator=generator), torch.randn(64, generator=generator)


def _four_ranks(images: int, lr: float) -> Tensor:
    x, y = _data()
    weight = torch.zeros(3)
    for _ in range(3):
        shares = [slice(rank * images, (rank + 1) * images) for rank in range(4)]
        gradients = [2 * x[s].T @ (x[s] @ weight - y[s]) / images for s in shares]
        weight = weight - lr * torch.stack(gradients).mean(0)
    return weight


def _one_process() -> Tensor:
    x, y = _data()
    weight = torch.zeros(3)
    for _ in range(3):
        weight = weight - 0.1 * 2 * x.T @ (x @ weight - y) / 64
    return weight


def _as_a_list():
    return [64 // 4, 0.1, "the gradient is the mean over the ranks"]


def _as_many_as_before():
    return 64, 0.1, "each rank makes a step of its own"


def _rate_times_four():
    return 16, 0.4, "the gradient is the mean over the ranks"


def _rate_divided():
    return 16, 0.025, "the gradient is the sum over the ranks"


def _right_for_the_wrong_reason():
    return 16, 0.1, "each rank makes a step of its own"


def _numbers_only():
    return 16, 0.1


@exercise(
    check=check_same_as_one,
    hints=[
        "How many images does one step see, over all ranks?",
        "If the gradient is that of the same 64 images, what must the rate be for the same step?",
        "DDP divides the sum of the gradients by the number of ranks: it is that of the whole batch.",
    ],
    also_right=[_as_a_list],
    mistakes=[
        Mistake(_as_many_as_before, says="a step sees 256 images"),
        Mistake(_rate_times_four, says="away from that of the one process"),
        Mistake(_rate_divided, says="away from that of the one process"),
        Mistake(_right_for_the_wrong_reason, says="the reason is not"),
        Mistake(_numbers_only, says="not of the three kinds"),
    ],
    remember="`batch_size` counts per process. Same images per step over all ranks: same learning rate.",
)
def same_as_one() -> tuple[int, float, str]:
    """Choose `batch_size` and `lr` for each of 4 processes with DDP, so that they train as one process does.

    The one process has `batch_size=64` and SGD with `lr=0.1`. Return three things: the batch size of each
    process, its rate, and the reason: "the gradient is the mean over the ranks", "the gradient is the sum
    over the ranks" or "each rank makes a step of its own".
    """
    return 16, 0.1, "the gradient is the mean over the ranks"
