"""What to keep of a training: copies, not views."""

import copy
import io

import torch
from torch import Tensor, nn

from ftlab.exercises.behaviour import some
from ftlab.exercises.core import Mistake, Wrong, exercise


def check_keep_best(answer):
    """What came back after five epochs, of which the second is the best, tensor by tensor, and the model."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    states, scores = [], [0.2, 0.9, 0.4, 0.8, 0.1]

    def train_epoch():
        for tensor in model.state_dict().values():
            tensor.add_(1)
        states.append(copy.deepcopy(model.state_dict()))

    best = answer(model, train_epoch, lambda: scores[len(states) - 1], 5)
    _say_if_no_state(best, states[0])
    same = [all(torch.equal(tensor, best[name]) for name, tensor in state.items()) for state in states]
    if not any(same):
        raise Wrong("What came back is the state of no epoch at all.", ask="What was copied, and when?")
    epoch = same.index(True)
    if epoch == 4:
        text = "The second of five epochs was the best, and what came back is the state after the last one."
        raise Wrong(text, ask="Whose memory do the tensors use that `state_dict()` gives?")
    if epoch != 1:
        raise Wrong(f"What came back is the state after epoch {epoch}, not the best.", ask="When is it kept?")


def _say_if_no_state(best: object, like: dict) -> None:
    if not isinstance(best, dict):
        raise Wrong(f"A `{type(best).__name__}` came back.", ask="Which method gives the tensors by name?")
    if missing := like.keys() - best.keys():
        raise Wrong(f"{some(missing)} is missing.", ask="Are running statistics parameters?")


def _keep_the_view(model, train_epoch, evaluate, epochs):
    best, best_score = None, -1.0
    for _ in range(epochs):
        train_epoch()
        score = evaluate()
        if score > best_score:
            best, best_score = model.state_dict(), score
    return best


def _keep(model, train_epoch, evaluate, epochs, take):
    best, best_score = None, -1.0
    for _ in range(epochs):
        train_epoch()
        score = evaluate()
        if score > best_score:
            best, best_score = take(), score
    return best


def _keep_copy(model, train_epoch, evaluate, epochs):
    return _keep(model, train_epoch, evaluate, epochs, lambda: model.state_dict().copy())


def _keep_parameters(model, train_epoch, evaluate, epochs):
    return _keep(
        model, train_epoch, evaluate, epochs, lambda: {n: p.detach().clone() for n, p in model.named_parameters()}
    )


def _keep_detached(model, train_epoch, evaluate, epochs):
    return _keep(
        model, train_epoch, evaluate, epochs, lambda: {n: t.detach() for n, t in model.state_dict().items()}
    )


def _keep_any_better(model, train_epoch, evaluate, epochs):
    best, last = None, -1.0
    for _ in range(epochs):
        train_epoch()
        score = evaluate()
        if score > last:
            best = copy.deepcopy(model.state_dict())
        last = score
    return best


def _keep_model(model, train_epoch, evaluate, epochs):
    return _keep(model, train_epoch, evaluate, epochs, lambda: copy.deepcopy(model))


def _keep_clones(model, train_epoch, evaluate, epochs):
    return _keep(
        model, train_epoch, evaluate, epochs, lambda: {n: t.clone() for n, t in model.state_dict().items()}
    )


def _keep_bytes(model, train_epoch, evaluate, epochs):
    file = io.BytesIO()

    def take():
        file.seek(0)
        file.truncate()
        torch.save(model.state_dict(), file)

    _keep(model, train_epoch, evaluate, epochs, take)
    file.seek(0)
    return torch.load(file)


@exercise(
    check=check_keep_best,
    broken=_keep_the_view,
    hints=[
        "Keep the state of a small model, add 1 to a weight, and look at what you kept.",
        "The tensors in `state_dict()` are the model's own, under another name.",
        "`copy.deepcopy`, or `.clone()` of every tensor.",
    ],
    also_right=[_keep_clones, _keep_bytes],
    mistakes=[
        Mistake(_keep_copy, says="the state after the last one"),
        Mistake(_keep_detached, says="the state after the last one"),
        Mistake(_keep_parameters, says="is missing"),
        Mistake(_keep_any_better, says="after epoch 3"),
        Mistake(_keep_model, says="A `Sequential` came back"),
    ],
    remember="`state_dict()` is a view of the model that goes on changing. A copy has to be made.",
)
def keep_best(model: nn.Module, train_epoch, evaluate, epochs: int) -> dict:
    """Repair: train for some epochs and return the state of the model after the best one.

    `train_epoch()` trains `model` for one epoch, `evaluate()` returns its score, higher is better.
    """
    import copy

    best, best_score = None, -1.0
    for _ in range(epochs):
        train_epoch()
        score = evaluate()
        if score > best_score:
            best, best_score = copy.deepcopy(model.state_dict()), score
    return best


def _written(value: object) -> int:
    file = io.BytesIO()
    torch.save(value, file)
    return file.tell()


def check_first_rows(answer):
    """The rows that came back, and how many bytes `torch.save` writes for them."""
    features = torch.randn(1000, 100)
    rows = answer(features, 5)
    if not isinstance(rows, Tensor) or rows.shape != (5, 100):
        found = tuple(rows.shape) if isinstance(rows, Tensor) else f"a `{type(rows).__name__}`"
        raise Wrong(f"For 5 of 1000 rows of 100 numbers {found} came back.", ask="Which index takes rows?")
    if not torch.equal(rows, features[:5]):
        raise Wrong("These are not the first 5 rows.", ask="Where do they begin?")
    size = _written(rows)
    if size > 10_000:
        text = f"5 rows are 2,000 bytes of numbers, and `torch.save` writes {size:,} bytes for what came back."
        raise Wrong(text, ask="Where do the numbers of a slice lie, and what else lies there?")
    if rows.dtype != features.dtype:
        raise Wrong(f"The numbers are {rows.dtype} now.", ask="What was to become smaller?")


def _rows_view(features, count):
    return features[:count]


def _rows_contiguous(features, count):
    return features[:count].contiguous()


def _rows_detached(features, count):
    return features[:count].detach()


def _rows_cloned_first(features, count):
    return features.clone()[:count]


def _rows_half(features, count):
    return features[:count].half().clone().float().half()


def _rows_transposed(features, count):
    return features[:, :count].clone()


def _rows_copied(features, count):
    return copy.deepcopy(features[:count])


def _rows_selected(features, count):
    return features[torch.arange(count)]


def _rows_empty(features, count):
    return torch.empty(count, features.shape[1]).copy_(features[:count])


@exercise(
    check=check_first_rows,
    broken=_rows_view,
    hints=[
        "Compare `torch.save`'s file for `features` and for `features[:count]`.",
        "A slice has no numbers of its own: it looks into the memory of the whole.",
        "`.clone()` makes a tensor with memory of its own. Before or after the slice?",
    ],
    also_right=[_rows_selected, _rows_empty],
    mistakes=[
        Mistake(_rows_contiguous, says="`torch.save` writes 401"),
        Mistake(_rows_detached, says="`torch.save` writes 401"),
        Mistake(_rows_cloned_first, says="`torch.save` writes 401"),
        Mistake(_rows_copied, says="`torch.save` writes 401"),
        Mistake(_rows_half, says="not the first 5 rows"),
        Mistake(_rows_transposed, says="came back"),
    ],
    remember="`torch.save` writes the memory behind a tensor, whole. Clone a slice before you save it.",
)
def first_rows(features: torch.Tensor, count: int) -> torch.Tensor:
    """Repair: return the first `count` rows in such a way that saving them writes only them."""
    return features[:count].clone()
