"""What lesson 07 says about gradients, clipping, targets, batches of one, memory, mixed precision and devices."""

import math
import os
import subprocess
import sys
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

from ftlab.modes import memory_of
from ftlab.probes import probe

# --- the order of the lines


@probe("`backward` adds to the gradient that is there, `step` leaves it, `zero_grad` sets it to None.")
def backward_adds() -> bool:
    weight = nn.Parameter(torch.tensor(5.0))
    optimizer, found = SGD([weight], lr=0.1), []
    for act in ((3 * weight).backward, (3 * weight).backward, optimizer.step):
        act()
        found.append(weight.grad.item())
    optimizer.zero_grad()
    return found == [3, 6, 6] and weight.grad is None


@probe("A step without a gradient moves nothing and says nothing.")
def a_step_without_gradient_is_silent() -> bool:
    weight = nn.Parameter(torch.ones(2))
    return not _warns(SGD([weight], lr=1.0, weight_decay=0.1).step) and bool((weight == 1).all())


@probe("`optimizer.zero_grad()` clears what the optimizer owns; the gradients of the rest of the model add up.")
def the_rest_adds_up() -> bool:
    body, head = nn.Linear(2, 2), nn.Linear(2, 1)
    optimizer, norms = SGD(head.parameters(), lr=0.0), []
    for _ in range(3):
        optimizer.zero_grad()
        head(body(torch.ones(1, 2))).sum().backward()
        norms.append(body.weight.grad.norm().item())
    return all(abs(norm / norms[0] - times) < 1e-4 for times, norm in enumerate(norms, 1))


@probe("The gradients of four batches add up to four times the gradient of the mean over all of them.")
def four_batches_add_up() -> bool:
    layer, x, y = nn.Linear(3, 2), torch.randn(8, 3), torch.randint(2, (8,))
    (one,) = torch.autograd.grad(F.cross_entropy(layer(x), y), [layer.weight])
    for rows, labels in zip(x.split(2), y.split(2), strict=True):
        F.cross_entropy(layer(rows), labels).backward()
    return torch.allclose(layer.weight.grad, 4 * one, atol=1e-5)


# --- clipping


def _with_gradients(*values: float) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor([value])
    return parameters


@probe(
    "`clip_grad_norm_` scales all gradients by one factor if their norm is too large; it returns the norm before."
)
def one_norm_over_all() -> bool:
    parameters = _with_gradients(3.0, 4.0)
    before = nn.utils.clip_grad_norm_(parameters, 1.0)
    after = torch.cat([p.grad for p in parameters])
    nn.utils.clip_grad_norm_(parameters, 2.0)  # below the limit: left alone
    same = all(p.grad == value for p, value in zip(parameters, after, strict=True))
    return before == 5 and torch.allclose(after, torch.tensor([0.6, 0.8]), atol=1e-5) and same


@probe("`clip_grad_value_` cuts off each number for itself: another direction.")
def values_change_the_direction() -> bool:
    parameters = _with_gradients(30.0, 0.4)
    nn.utils.clip_grad_value_(parameters, 1.0)
    return [round(p.grad.item(), 3) for p in parameters] == [1.0, 0.4]


@probe("One NaN makes every gradient NaN in `clip_grad_norm_`; `error_if_nonfinite=True` raises instead.")
def one_nan_spoils_all() -> bool:
    refused, spoilt = _with_gradients(1.0, math.nan), _with_gradients(1.0, math.nan)
    raises = _raises(RuntimeError, lambda: nn.utils.clip_grad_norm_(refused, 1.0, error_if_nonfinite=True))
    nn.utils.clip_grad_norm_(spoilt, 1.0)
    return raises and all(p.grad.isnan().all() for p in spoilt)


@probe("Of an empty generator `clip_grad_norm_` warns, of an empty filter and of missing gradients it does not.")
def clipping_nothing() -> bool:
    def clip(parameters) -> bool:
        return _warns(lambda: nn.utils.clip_grad_norm_(parameters, 1.0))

    return clip(p for p in ()) and not clip(filter(None, [])) and not clip([nn.Parameter(torch.ones(1))])


# --- targets


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
    return all(_raises(RuntimeError, lambda t=targets: F.cross_entropy(logits, t)) for targets in refused)


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
    return labels.shape == (3, 1) and _raises(RuntimeError, lambda: F.cross_entropy(torch.zeros(3, 3), labels))


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
        raises = _raises(RuntimeError, lambda: loss(4))
    return raises and _warns(lambda: loss(3))


# --- a batch of one


@probe("`unsqueeze(0)`, `[None]`, `view(1, ...)` and NumPy's `newaxis` give the same batch, and copy nothing.")
def four_ways_to_a_batch() -> bool:
    array = np.arange(24).reshape(4, 3, 2)
    tensor = torch.from_numpy(array)
    ways = tensor.unsqueeze(0), tensor[None], tensor.view(1, *tensor.shape), torch.from_numpy(array[np.newaxis])
    return all(torch.equal(way, ways[0]) and way.data_ptr() == tensor.data_ptr() for way in ways)


@probe("`view` keeps the order in memory, `permute` moves a dimension: only the shape is the same.")
def view_scrambles() -> bool:
    image = torch.arange(24).view(2, 4, 3)  # H, W, C
    moved = image.permute(2, 0, 1)
    scrambled = image.view(3, 2, 4)
    return moved.shape == scrambled.shape and moved[1, 0, 0] == image[0, 0, 1] != scrambled[1, 0, 0]


@probe("A convolution refuses an image with its channels last, but not one of height 3.")
def channels_last_are_refused() -> bool:
    layer = nn.Conv2d(3, 1, 3)
    refused = _raises(RuntimeError, lambda: layer(torch.zeros(1, 48, 64, 3)))
    return refused and layer(torch.zeros(1, 3, 64, 3)).ndim == 4


@probe("torch refuses an array with negative strides, as `image[:, :, ::-1]` is one; a copy is taken.")
def negative_strides_are_refused() -> bool:
    flipped = np.zeros((2, 2, 3), np.uint8)[:, :, ::-1]
    return (
        _raises(ValueError, lambda: torch.from_numpy(flipped)) and torch.from_numpy(flipped.copy()).numel() == 12
    )


@probe("`squeeze()` takes away every dimension of size 1, `squeeze(1)` that one only, and only if it is 1.")
def squeeze_eats_the_batch() -> bool:
    one, four = torch.zeros(1, 1), torch.zeros(4, 2)
    return one.squeeze().shape == () and one.squeeze(1).shape == (1,) and four.squeeze(1).shape == (4, 2)


# --- memory


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


# --- mixed precision


@probe(
    "Under autocast parameters and gradients stay float32, outputs of layers are bfloat16, the loss is float32."
)
def types_under_autocast() -> bool:
    layer = nn.Linear(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = layer(torch.randn(2, 4))
        loss = F.cross_entropy(outputs, torch.tensor([0, 1]))
    loss.backward()
    found = [tensor.dtype for tensor in (layer.weight, layer.weight.grad, outputs, loss)]
    saved = {tensor.dtype for tensor in layer.state_dict().values()}
    return found == [torch.float32, torch.float32, torch.bfloat16, torch.float32] and saved == {torch.float32}


@probe("A gradient of 1e-8 is 0 in float16, and not in bfloat16; scaled by 65536 float16 has it.")
def small_gradients_vanish() -> bool:
    tiny = torch.tensor(1e-8)
    return tiny.half() == 0 and tiny.bfloat16() != 0 and (tiny * 65536).half() != 0


def _scaled_step(unscale: bool) -> float:
    weight = nn.Parameter(torch.zeros(4))
    optimizer, scaler = SGD([weight], lr=1.0), torch.amp.GradScaler("cpu", init_scale=65536.0)
    scaler.scale(weight.sum()).backward()
    if unscale:
        scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_([weight], 1.0)
    scaler.step(optimizer)
    scaler.update()
    return weight.detach().norm().item()


@probe("A clip before `scaler.unscale_` makes the step vanish: it is divided by the scale.")
def clip_after_unscale() -> bool:
    return abs(_scaled_step(True) - 1) < 1e-4 and _scaled_step(False) < 2e-5


@probe("A scaler that meets a gradient which is no number skips the step and halves its scale.")
def scaler_skips() -> bool:
    weight = nn.Parameter(torch.ones(1))
    optimizer, scaler = SGD([weight], lr=1.0), torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale((weight * math.inf).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    return weight.item() == 1 and scaler.get_scale() == 4


@probe("`unscale_` twice in a round raises; a round ends with `scaler.update()`.")
def unscale_once() -> bool:
    weight = nn.Parameter(torch.ones(1))
    optimizer, scaler = SGD([weight], lr=1.0), torch.amp.GradScaler("cpu")
    scaler.scale(weight.sum()).backward()
    scaler.unscale_(optimizer)
    return _raises(RuntimeError, lambda: scaler.unscale_(optimizer))


@probe("The state of a disabled scaler is empty, and cannot be loaded into an enabled one.")
def disabled_scalers_save_nothing() -> bool:
    state = torch.amp.GradScaler("cpu", enabled=False).state_dict()
    return state == {} and _raises(RuntimeError, lambda: torch.amp.GradScaler("cpu").load_state_dict(state))


# --- devices


@probe("PyTorch's name for a GPU is `cuda:0`; `/gpu:0` is refused.")
def names_of_devices() -> bool:
    return torch.device("cuda:0").index == 0 and _raises(RuntimeError, lambda: torch.device("/gpu:0"))


@probe("An environment variable is a string: a number is refused.")
def the_variable_is_a_string() -> bool:
    return _raises(TypeError, lambda: os.environ.__setitem__("CUDA_VISIBLE_DEVICES", 0))


@probe("Importing torch does not start CUDA, and the variable is read when it is asked for, not at the import.")
def importing_does_not_start_cuda() -> bool:
    script = (
        "import os, torch; started = torch.cuda.is_initialized(); os.environ['CUDA_VISIBLE_DEVICES'] = '2,0'; "
        "print(started, torch.cuda._parse_visible_devices())"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return run.stdout.strip() == "False [2, 0]"


@probe("The order in CUDA_VISIBLE_DEVICES is the numbering; a wrong entry ends the list, a double one voids it.")
def the_list_of_devices() -> bool:
    before, found = os.environ.get("CUDA_VISIBLE_DEVICES"), {}
    try:
        for value in ("2,0", "0,x,1", "1,-1,0", "0,0", ""):
            os.environ["CUDA_VISIBLE_DEVICES"] = value
            found[value] = torch.cuda._parse_visible_devices()
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES")
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
    return found == {"2,0": [2, 0], "0,x,1": [0], "1,-1,0": [1], "0,0": [], "": []}


def _raises(kind: type[Exception], call) -> bool:
    try:
        call()
    except kind:
        return True
    return False


def _warns(call) -> bool:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call()
    return bool(said)
