"""What lesson 04 says about train and eval mode, gradients, batch norm and dropout."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from ftlab.probes import probe


def _norm(**settings) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(3, **settings)


def _batch(rows: int = 8) -> Tensor:
    return torch.randn(rows, 3) + 5


def _moves(module: nn.Module, around: Callable = nullcontext) -> bool:
    """Return whether a forward pass changes a parameter or a buffer."""
    before = [tensor.clone() for tensor in module.state_dict().values()]
    with around():
        module(_batch())
    return any(not torch.equal(a, b) for a, b in zip(before, module.state_dict().values(), strict=True))


def _raises(error: type[Exception], words: str, action: Callable) -> bool:
    try:
        action()
    except error as raised:
        return words in str(raised)
    return False


@probe("`eval()` does not stop gradients: the output has a graph, and a step moves the parameters.")
def eval_learns() -> bool:
    model = nn.Sequential(nn.Linear(3, 3), _norm()).eval()
    before, optimizer = model[0].weight.clone(), torch.optim.SGD(model.parameters(), lr=0.1)
    model(_batch()).square().mean().backward()
    optimizer.step()
    return not torch.equal(before, model[0].weight)


@probe("In train mode a forward pass moves the statistics of batch norm, without a loss and without a step.")
def looking_moves_statistics() -> bool:
    return _moves(_norm())


@probe("`no_grad` does not stop batch norm: the statistics move.")
def no_grad_moves_statistics() -> bool:
    return _moves(_norm(), torch.no_grad)


@probe("`inference_mode` does not stop batch norm: the statistics move.")
def inference_mode_moves_statistics() -> bool:
    return _moves(_norm(), torch.inference_mode)


@probe("In eval mode a forward pass changes nothing in a batch norm.")
def eval_moves_nothing() -> bool:
    return not _moves(_norm().eval())


@probe("Dropout has no state: a forward pass changes nothing in it, only its output is random.")
def dropout_has_no_state() -> bool:
    dropout, ones = nn.Dropout(0.5), torch.ones(64)
    return not dropout.state_dict() and not torch.equal(dropout(ones), dropout(ones))


@probe("Dropout scales up what it lets through, so that the mean stays, and does nothing in eval mode.")
def dropout_scales() -> bool:
    dropout, ones = nn.Dropout(0.5), torch.ones(64)
    return dropout(ones).unique().tolist() == [0.0, 2.0] and torch.equal(dropout.eval()(ones), ones)


@probe("`eval()` alone and `eval()` with `no_grad` give the same numbers, bit for bit.")
def no_grad_changes_no_number() -> bool:
    model, batch = nn.Sequential(nn.Linear(3, 3), _norm(), nn.Dropout()).eval(), _batch()
    with_graph = model(batch)
    with torch.no_grad():
        return with_graph.requires_grad and torch.equal(with_graph, model(batch))


@probe("In train mode the output for an image depends on the rest of its batch; in eval mode it does not.")
def the_batch_decides() -> bool:
    norm, batch = _norm(), _batch()
    train = torch.allclose(norm(batch)[:2], norm(batch[:2]))
    norm.eval()
    return not train and torch.allclose(norm(batch)[:2], norm(batch[:2]))


@probe("Batch norm in train mode refuses a batch with one value per channel.")
def one_value_is_refused() -> bool:
    return _raises(ValueError, "Expected more than 1 value per channel", lambda: _norm()(_batch(1)))


@probe("A refused batch has been counted all the same, before it was refused.")
def a_refused_batch_is_counted() -> bool:
    norm = _norm()
    return _raises(ValueError, "", lambda: norm(_batch(1))) and norm.num_batches_tracked.item() == 1


@probe("With momentum 0.1, three batches bring the running mean 27 % of the way, and with 0.01 only 3 %.")
def three_batches_are_few() -> bool:
    fast, slow = _norm(), _norm(momentum=0.01)
    for _ in range(3):
        fast(torch.ones(4, 3))
        slow(torch.ones(4, 3))
    found = fast.running_mean[0].item(), slow.running_mean[0].item()
    return abs(found[0] - (1 - 0.9**3)) < 1e-6 and abs(found[1] - (1 - 0.99**3)) < 1e-6


@probe("With `momentum=None` the running mean is the plain mean over all batches.")
def momentum_none_is_the_mean() -> bool:
    norm = _norm(momentum=None)
    norm(torch.full((4, 3), 1.0))
    norm(torch.full((4, 3), 5.0))
    return torch.allclose(norm.running_mean, torch.full((3,), 3.0))


@probe("The running variance is the unbiased one, while a batch in train mode is normalised with the biased one.")
def two_variances() -> bool:
    norm, batch = _norm(momentum=1.0), _batch(4)
    normalised = norm(batch)
    unbiased = torch.allclose(norm.running_var, batch.var(0, unbiased=True))
    return unbiased and torch.allclose(normalised.var(0, unbiased=False), torch.ones(3), atol=1e-3)


@probe("`momentum=0` stops the statistics, but in train mode the batch's own are used all the same.")
def momentum_zero_still_uses_the_batch() -> bool:
    norm, batch = _norm(momentum=0.0), _batch()
    mean = norm(batch).mean().abs().item()
    return mean < 0.1 and not norm.running_mean.any()


@probe("`track_running_stats=False` set afterwards: in eval mode the old stored statistics are still used.")
def tracking_switched_off_later() -> bool:
    norm = _norm()
    norm.track_running_stats = False
    return norm.eval()(_batch()).mean().item() > 3


@probe("A batch norm built with `track_running_stats=False` uses the batch in eval mode too.")
def tracking_off_from_the_start() -> bool:
    return abs(_norm(track_running_stats=False).eval()(_batch()).mean().item()) < 0.1


@probe("`eval()` on a batch norm does not stop its weight and bias from learning.")
def eval_norm_learns() -> bool:
    norm = _norm().eval()
    norm(_batch()).square().mean().backward()
    return bool(norm.weight.grad.any())


@probe("`model.train()` sets the flag of every module inside, whatever it was.")
def train_wakes_all() -> bool:
    model = nn.Sequential(_norm().eval(), nn.Sequential(_norm().eval()))
    return all(module.training for module in model.train().modules())


@probe("`eval()` of a part holds the norms of that part alone, and only until the next `train()` of the whole.")
def eval_of_a_part() -> bool:
    model = nn.Sequential(_norm(), nn.Sequential(_norm()))
    model[1].eval()
    alone = _moves(model[0]) and not _moves(model[1])
    return alone and _moves(model.train()[1])


@probe("`for module in model.modules(): module.eval()` is `model.eval()`: dropout is off too.")
def eval_of_all_modules() -> bool:
    model = nn.Sequential(_norm(), nn.Dropout())
    for module in model.modules():
        module.eval()
    return not any(module.training for module in model.modules())


@probe("FrozenBatchNorm2d of torchvision takes over a batch norm's state and does not ask for the mode.")
def frozen_batch_norm() -> bool:
    norm, frozen = nn.BatchNorm2d(3), FrozenBatchNorm2d(3)
    norm(torch.randn(4, 3, 2, 2) + 5)
    frozen.load_state_dict(norm.state_dict())
    images = torch.randn(4, 3, 2, 2)
    return not list(frozen.parameters()) and torch.equal(frozen.train()(images), frozen.eval()(images))


@probe("A module that is put into a model in eval mode is in train mode itself.")
def a_new_module_trains() -> bool:
    model = nn.Sequential(nn.Linear(1, 1)).eval()
    model.append(nn.Dropout())
    return model[1].training and not model.training


@probe("Setting `model.training = False` sets the flag of that one module, not of those inside.")
def the_attribute_is_one_modules() -> bool:
    model = nn.Sequential(nn.Dropout())
    model.training = False
    return model[0].training


@probe("Without a graph, backward raises: 'does not require grad'.")
def no_graph_no_backward() -> bool:
    with torch.no_grad():
        output = nn.Linear(3, 1)(_batch()).sum()
    return _raises(RuntimeError, "does not require grad", output.backward)


@probe("What was computed under `no_grad` can train a head; what was computed in `inference_mode` cannot.")
def features_for_a_head() -> bool:
    with torch.no_grad():
        plain = nn.Linear(3, 3)(_batch())
    with torch.inference_mode():
        marked = nn.Linear(3, 3)(_batch())
    head = nn.Linear(3, 1)
    head(plain).sum().backward()
    refused = _raises(RuntimeError, "Inference tensors cannot be saved for backward", lambda: head(marked))
    return refused and head.weight.grad is not None


@probe("A `clone()` outside of `inference_mode` makes an ordinary tensor of an inference tensor.")
def a_clone_is_ordinary() -> bool:
    with torch.inference_mode():
        marked = nn.Linear(3, 3)(_batch())
    nn.Linear(3, 1)(marked.clone()).sum().backward()
    return marked.is_inference() and not marked.clone().is_inference()


@probe("A layer that is built in `inference_mode` cannot learn; one that is built under `no_grad` can.")
def build_outside() -> bool:
    with torch.inference_mode():
        marked = nn.Linear(3, 1)
    with torch.no_grad():
        plain = nn.Linear(3, 1)
    _learn(plain)
    return _raises(RuntimeError, "Inplace update to inference tensor", lambda: _learn(marked))


def _learn(layer: nn.Module) -> None:
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(_batch()).sum().backward()
    optimizer.step()


@probe("`optimizer.step()` moves parameters inside of `no_grad` too, if they have a gradient.")
def no_grad_does_not_stop_a_step() -> bool:
    layer = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(_batch()).sum().backward()
    before = layer.weight.clone()
    with torch.no_grad():
        optimizer.step()
    return not torch.equal(before, layer.weight)


@probe("The gradients of the same model and batch differ between train and eval mode, without dropout as well.")
def gradients_differ() -> bool:
    model, batch, found = nn.Sequential(nn.Linear(3, 3), _norm()), _batch(), []
    for mode in (True, False):
        model.train(mode).zero_grad()
        model(batch).pow(3).mean().backward()
        found.append(model[0].weight.grad.clone())
    return not torch.allclose(*found)


@probe("A backward hook on a module before an in-place ReLU makes the forward pass raise.")
def backward_hooks_and_in_place() -> bool:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    model[0].register_full_backward_hook(lambda *_: None)
    return _raises(RuntimeError, "is a view and is being modified inplace", lambda: model(_batch()))
