"""Loops that leave the modes as they should be: a validation, the beginning of an epoch."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ftlab.exercises.behaviour import as_number, images, moved, some
from ftlab.exercises.core import Mistake, Raised, Wrong, exercise
from ftlab.exercises.models import SmallResNet
from ftlab.modes import evaluating, keep_modes
from ftlab.modes.measuring import memory_of


def _resnet_with_dropout() -> nn.Module:
    model = SmallResNet()
    model.fc = nn.Sequential(nn.Dropout(0.5), model.fc)
    model.bn1.eval()  # held by hand, against the model around it
    return model


def check_validate(answer):
    """The accuracy of a small ResNet, its statistics, the graph, and all modes after it and after an error."""
    model = _resnet_with_dropout()
    batches = [(images(), torch.randint(3, (4,))) for _ in range(3)]
    wanted = _accuracy(model, batches)
    modes = _modes(model)
    found = []
    drifting = moved(model, lambda: found.append(answer(model, batches)))
    if drifting:
        ask = "Which mode is the model in while you look?"
        raise Wrong(f"{some(drifting)} moved while you only looked.", ask=ask)
    _expect_modes(model, modes, "Afterwards")
    _expect_number(found[0], wanted)
    _expect_no_graph(answer, model, batches)
    _expect_modes_after_an_error(answer, model, modes)


def _expect_number(found: object, wanted: float) -> None:
    value = as_number(found, "accuracy")
    if not abs(value - wanted) <= 1e-4:  # nan is not close to anything
        text = f"In eval mode the accuracy is another one than yours, {value:.3f}."
        raise Wrong(text, ask="Is every image counted once, and is dropout off?")


def _accuracy(model: nn.Module, batches: list) -> float:
    with evaluating(model):
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in batches)
    return right / sum(len(y) for _, y in batches)


def _modes(model: nn.Module) -> dict[str, bool]:
    return {name or "model": module.training for name, module in model.named_modules()}


def _expect_modes(model: nn.Module, wanted: dict[str, bool], when: str) -> None:
    found = _modes(model)
    woken = {name for name in wanted if found[name] and not wanted[name]}
    asleep = {name for name in wanted if wanted[name] and not found[name]}
    if asleep:
        ask = "In which mode does the training go on?"
        raise Wrong(f"{when} {some(asleep)} is still in eval mode, and was in train mode before.", ask=ask)
    if woken:
        ask = "What does `model.train()` do to a module that was in eval mode on purpose?"
        raise Wrong(f"{when} {some(woken)} is in train mode, and was in eval mode before.", ask=ask)


def _expect_no_graph(answer, model: nn.Module, batches: list) -> None:
    graphs = []
    hook = model.register_forward_hook(lambda module, inputs, output: graphs.append(output.requires_grad))
    answer(model, batches)
    hook.remove()
    if any(graphs):
        kept, _ = memory_of(_resnet_with_dropout(), batches[0][0])
        text = f"The outputs carry a graph: some {kept:,} bytes are kept for each batch."
        raise Wrong(text, ask="Which switch says that there will be no backward pass? It is not the mode.")


def _expect_modes_after_an_error(answer, model: nn.Module, modes: dict[str, bool]) -> None:
    broken = [(images(), torch.randint(3, (4,))), (torch.zeros(4, 7, 32, 32), torch.zeros(4, dtype=torch.long))]
    try:
        answer(model, broken)
    except Raised:
        _expect_modes(model, modes, "After an image of the wrong shape, which raises,")
        return
    raise Wrong(
        "A batch of the wrong shape was passed over in silence.", ask="Who shall get to know of an error?"
    )


def _forgetful(model, batches):
    model.eval()
    right = count = 0
    for x, y in batches:
        right += (model(x).argmax(1) == y).sum()
        count += len(y)
    model.train()
    return right / count


def _by_flags(model, batches):
    modes = [(module, module.training) for module in model.modules()]
    right = count = 0
    try:
        model.eval()
        with torch.inference_mode():
            for x, y in batches:
                right += (model(x).argmax(1) == y).sum().item()
                count += len(y)
    finally:
        for module, training in modes:
            module.training = training
    return right / count


def _with_ftlab(model, batches):
    with evaluating(model):
        found = [(model(x).argmax(1) == y).float() for x, y in batches]
    return torch.cat(found).mean()


def _in_train_mode(model, batches):
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in batches)
    return right / sum(len(y) for _, y in batches)


def _leaves_eval(model, batches):
    model.eval()
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in batches)
    return right / sum(len(y) for _, y in batches)


def _wakes_all(model, batches):
    accuracy = _leaves_eval(model, batches)
    model.train()
    return accuracy


def _the_flag_of_the_root(model, batches):
    was = model.training
    accuracy = _leaves_eval(model, batches)
    model.train(was)
    return accuracy


def _keeps_the_graph(model, batches):
    with keep_modes(model):
        model.eval()
        found = [(model(x).argmax(1) == y).float() for x, y in batches]
    return torch.cat(found).mean()


def _not_after_an_error(model, batches):
    modes = [(module, module.training) for module in model.modules()]
    accuracy = _leaves_eval(model, batches)
    for module, training in modes:
        module.training = training
    return accuracy


def _swallows_the_error(model, batches):
    try:
        return _by_flags(model, batches)
    except RuntimeError:
        return 0.0


def _right_ones_per_batch(model, batches):
    return _by_flags(model, batches) * 4


@exercise(
    check=check_validate,
    broken=_forgetful,
    hints=[
        "Three things are wrong: what is kept, what is woken, and what an error leaves behind.",
        "Write down the flag of every module before, and put each back. `finally:` is run after an error, too.",
        "`[(m, m.training) for m in model.modules()]` first, then `try:` ... `finally:`, and `no_grad`.",
    ],
    also_right=[_by_flags, _with_ftlab],
    mistakes=[
        Mistake(_in_train_mode, says="moved while you only looked"),
        Mistake(_leaves_eval, says="is still in eval mode"),
        Mistake(_wakes_all, says="`bn1` is in train mode, and was in eval mode before"),
        Mistake(_the_flag_of_the_root, says="`bn1` is in train mode"),
        Mistake(_keeps_the_graph, says="The outputs carry a graph"),
        Mistake(_not_after_an_error, says="After an image of the wrong shape"),
        Mistake(_swallows_the_error, says="passed over in silence"),
        Mistake(_right_ones_per_batch, says="the accuracy is another one"),
    ],
    remember="Put back what was there, module by module; `model.train()` is no undo of `model.eval()`.",
)
def validate(model: nn.Module, batches: list) -> float:
    """Repair: return the accuracy of `model` in eval mode on `batches`, and leave no trace.

    Afterwards every module is in the mode that it had before: one of the batch norms was put in eval mode on
    purpose. No graph is kept. If a batch raises an error, the error comes through, and the modes are back too.
    """
    modes = [(module, module.training) for module in model.modules()]
    right, count = 0, 0
    try:
        model.eval()
        with torch.no_grad():
            for x, y in batches:
                right += (model(x).argmax(1) == y).sum().item()
                count += len(y)
    finally:
        for module, training in modes:
            module.training = training
    return right / count


def check_train_mode(answer):
    """A ResNet, frozen but for `layer4` and the head: each norm's statistics, dropout, a second call."""
    model = SmallResNet().requires_grad_(False)
    model.fc = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(64, affine=False), nn.Linear(64, 3))
    model.layer4.requires_grad_(True)
    model.eval()
    flags = [parameter.requires_grad for parameter in model.parameters()]
    answer(model)
    if [parameter.requires_grad for parameter in model.parameters()] != flags:
        raise Wrong("Parameters have been frozen or thawed on the way.", ask="Which flag is the mode?")
    _expect_statistics(model, "")
    model.layer4.requires_grad_(False)
    model.layer1.requires_grad_(True)
    answer(model)
    _expect_statistics(model, "After `layer4` was frozen, `layer1` thawed, and a second call: ")


def _expect_statistics(model: nn.Module, where: str) -> None:
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    frozen = {n for n, m in norms.items() if m.affine and not any(p.requires_grad for p in m.parameters())}
    moving = {name.rpartition(".")[0] for name in moved(model, lambda: model(images()))}
    if moving & frozen:
        text = f"{where}The statistics of the frozen {some(moving & frozen)} moved in a forward pass."
        raise Wrong(text, ask="In which mode do they stay, and which of the norms is frozen?")
    still = set(norms) - frozen - moving
    if still:
        text = f"{where}The statistics of {some(still)} should move, and stood still."
        raise Wrong(text, ask="Is it frozen? A norm without parameters has nothing that could be.")
    if not model.fc[0].training:
        raise Wrong(
            f"{where}The dropout in the head drops nothing.", ask="Who is in train mode, but for the norms?"
        )


def _train_mode_recursive(model):
    def visit(module):
        own = list(module.parameters())
        frozen = isinstance(module, nn.BatchNorm2d) and not any(p.requires_grad for p in own)
        module.training = not frozen
        for child in module.children():
            visit(child)

    visit(model)


def _train_mode_by_weight(model):
    model.train()
    for module in model.modules():
        if (
            isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)
            and module.affine
            and not module.weight.requires_grad
        ):
            module.eval()


def _plain_train(model):
    model.train()


def _all_norms(model):
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _every_frozen_module(model):
    model.train()
    for module in model.modules():
        if not any(parameter.requires_grad for parameter in module.parameters()):
            module.eval()


def _norms_without_parameters_too(model):
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            module.eval()


def _never_woken(model):
    model.fc.train()
    model.layer4.train()


def _freezes_more(model):
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()
    model.layer4.requires_grad_(False)


@exercise(
    check=check_train_mode,
    hints=[
        "First all in train mode, then some back in eval mode.",
        "Two questions for each module: is it a batch norm, and is it frozen?",
        "`isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))`, and `module.weight.requires_grad` if `affine`.",
    ],
    also_right=[_train_mode_recursive, _train_mode_by_weight],
    mistakes=[
        Mistake(_plain_train, says="The statistics of the frozen `bn1`"),
        Mistake(_all_norms, says="should move, and stood still"),
        Mistake(_every_frozen_module, says="should move, and stood still"),
        Mistake(_norms_without_parameters_too, says="`fc.1` should move, and stood still"),
        Mistake(_never_woken, says="After `layer4` was frozen"),
        Mistake(_freezes_more, says="frozen or thawed on the way"),
    ],
    remember="Freeze by the flag, hold by the mode, and set the mode again in each epoch.",
)
def train_mode(model: nn.Module) -> None:
    """Write what a loop calls in place of `model.train()`: all in train mode, but for frozen batch norms.

    A batch norm is frozen if it has parameters, and none of them requires a gradient. Everything else trains:
    dropout, batch norms that are not frozen, and those that have no parameters (`affine=False`).
    """
    model.train()
    for module in model.modules():
        if (
            isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))
            and module.affine
            and not module.weight.requires_grad
        ):
            module.eval()
