"""Batch norm: what moves although it is frozen, and how to hold it."""

import types
from collections import OrderedDict

import torch
from torch import Tensor, nn

from ftlab.exercises.behaviour import as_names, below, expect_moves, images, moved, sgd, snapshot, some, train
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet


def _conv_bn_fc() -> nn.Sequential:
    layers = {"conv": nn.Conv2d(3, 4, 3, bias=False), "bn": nn.BatchNorm2d(4), "relu": nn.ReLU()}
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(4, 2)}
    model = nn.Sequential(OrderedDict(layers)).requires_grad_(False)
    model.fc.requires_grad_(True)
    return model


def check_what_moves(answer):
    """Every name of the prediction against one training step of the model in the task, compared bit for bit."""
    model = _conv_bn_fc()
    predicted = as_names(answer(), snapshot(model))
    moving = moved(model, lambda: train(model, sgd(model), steps=1))
    if predicted - moving:
        text = f"You name {some(predicted - moving)}. We ran the step: equal bit for bit afterwards."
        raise Wrong(text, ask="Is it a parameter, and does it get a gradient?")
    left_out = len(moving - predicted)
    if left_out:
        ask = "Who else writes into a tensor, besides the optimizer? A buffer needs no gradient to be written."
        raise Wrong(f"What you name moves. {left_out} more in the list moved too.", ask=ask)


def _as_list():
    return ["fc.bias", "fc.weight", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked"]


def _by_rule():
    tensors = ["running_mean", "running_var", "num_batches_tracked"]
    return {f"bn.{name}" for name in tensors} | {"fc.weight", "fc.bias"}


def _only_the_head():
    return {"fc.weight", "fc.bias"}


def _head_and_norm_parameters():
    return {"fc.weight", "fc.bias", "bn.weight", "bn.bias"}


def _without_the_counter():
    return {"fc.weight", "fc.bias", "bn.running_mean", "bn.running_var"}


def _everything():
    return set(_by_rule()) | {"conv.weight", "bn.weight", "bn.bias"}


def _one_name():
    return "fc"


def _names_of_modules():
    return {"fc", "bn"}


@exercise(
    check=check_what_moves,
    hints=[
        "There are two kinds of tensors in the list. `model.named_buffers()` lists the second kind.",
        "The optimizer moves parameters that have a gradient. Who fills `running_mean`, and when?",
        "Batch norm in train mode writes into all its buffers in each forward pass, the counter too.",
    ],
    also_right=[_as_list, _by_rule],
    mistakes=[
        Mistake(_only_the_head, says="3 more in the list moved too"),
        Mistake(_head_and_norm_parameters, says="You name `bn.bias`, `bn.weight`. We ran the step"),
        Mistake(_without_the_counter, says="1 more in the list moved too"),
        Mistake(_everything, says="You name `bn.bias`, `bn.weight` and 1 more"),
        Mistake(_one_name, says="what you gave is of type `str`"),
        Mistake(_names_of_modules, says="`bn`, `fc`: no such name is in the task"),
    ],
    remember="`requires_grad` is about parameters. Buffers follow the mode, train or eval.",
)
def what_moves() -> set[str]:
    """Predict: which of these tensors are changed by one training step?

        model = nn.Sequential(OrderedDict(
            conv=nn.Conv2d(3, 4, 3, bias=False), bn=nn.BatchNorm2d(4), relu=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(4, 2)))
        model.requires_grad_(False)
        model.fc.requires_grad_(True)
        model.train()      # then: forward, backward, one step of SGD over the trainable parameters

    Name them from: "conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var",
    "bn.num_batches_tracked", "fc.weight", "fc.bias".
    """
    return {"fc.weight", "fc.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}


def check_hold_batch_norm(answer):
    """The buffers of a small ResNet in a loop with `model.train()`; its features then, dropout, the head."""
    model = SmallResNet().requires_grad_(False)
    model.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 3))
    _forget_the_start(model)
    batch = images()
    features = _features(model.eval(), batch)
    answer(model.train())
    buffers = {name for name, _ in model.named_buffers()}
    drifting = moved(model, lambda: train(model)) & buffers
    if any("running" in name for name in drifting):
        ask = "Which mode is each batch norm in, once the loop has called `model.train()`?"
        raise Wrong(f"{some(drifting)} moved while the loop trained the head.", ask=ask)
    model.train()
    _expect_features(model, batch, features)
    if drifting:
        raise Wrong(
            f"{some(drifting)} moved: the batches are still being counted.", ask="In which mode do they count?"
        )
    if torch.equal(model(batch), model(batch)):
        ask = "Which modules did you put into eval mode, and which of them are batch norm?"
        raise Wrong("After `model.train()` the dropout in the head drops nothing any more.", ask=ask)
    expect_moves(model, below(model, "fc"))


def _forget_the_start(model: nn.Module) -> None:
    """Give batch norm statistics that are not those of the data, as a pretrained model's are."""
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5) if "var" in name else buffer.uniform_(-0.1, 0.1)


def _expect_features(model: nn.Module, batch: Tensor, wanted: Tensor) -> None:
    """Raise `Wrong` unless the model gives in train mode the features `wanted`, of its stored statistics."""
    found, among_two = _features(model, batch), _features(model, batch[:2])
    if not torch.allclose(found[:2], among_two, atol=1e-4):
        text = "The statistics are stored unchanged, yet not used: after `model.train()` the features of an image"
        ask = "What does batch norm use in eval mode, and what in train mode?"
        raise Wrong(f"{text} change with the other images of its batch.", ask=ask)
    if not torch.allclose(found, wanted, atol=1e-4):
        text = "After `model.train()` the model gives other features than in eval mode before your call."
        raise Wrong(text, ask="Is each batch norm still there, with the statistics that it had?")


def _features(model: nn.Module, batch: Tensor) -> Tensor:
    """Return what reaches the head, without the dropout in it."""
    found = []
    hook = model.fc.register_forward_pre_hook(lambda module, args: found.append(args[0].detach()))
    model(batch)
    hook.remove()
    return found[0]


def _hold_by_method(model):
    def stay(self, mode=True):
        return self

    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = types.MethodType(stay, module)


def _hold_by_train_of_the_model(model):
    usual = model.train

    def train_but_hold(mode=True):
        usual(mode)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return model

    model.train = train_but_hold


def _eval_once(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _eval_of_all_modules(model):
    for module in model.modules():
        module.eval()


def _flags_only(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.requires_grad = False
            module.bias.requires_grad = False


def _momentum_zero(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0


def _stop_tracking(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False


def _never_train_again(model):
    model.eval()
    model.train = lambda mode=True: model


def _forward_in_no_grad(model):
    usual = model.forward

    def forward(images):
        with torch.no_grad():
            return usual(images)

    model.forward = forward


@exercise(
    check=check_hold_batch_norm,
    hints=[
        "Compare `model.bn1.training` before and after the call of `model.train()`.",
        "The call has to be outlived. A forward pre-hook runs later; a `train` of its own takes its place.",
        "For each batch norm: `register_forward_pre_hook` with a function that calls `eval()` on the module.",
    ],
    also_right=[_hold_by_method, _hold_by_train_of_the_model],
    mistakes=[
        Mistake(_eval_once, says="moved while the loop trained the head"),
        Mistake(_eval_of_all_modules, says="moved while the loop trained the head"),
        Mistake(_flags_only, says="moved while the loop trained the head"),
        Mistake(_momentum_zero, says="stored unchanged, yet not used"),
        Mistake(_stop_tracking, says="stored unchanged, yet not used"),
        Mistake(_never_train_again, says="drops nothing any more"),
        Mistake(_forward_in_no_grad, says="moved while the loop trained the head"),
    ],
    remember="A held batch norm is one that is in eval mode at each forward pass, whatever `model.train()` says.",
)
def hold_batch_norm(model: nn.Module) -> None:
    """Hold every batch norm of `model`: its statistics are used and stay as they are, also after `model.train()`.

    The model is a ResNet whose backbone is frozen by its flags. Its head `model.fc` has a dropout, which goes on
    dropping in train mode. The training loop is not yours: it begins every epoch with `model.train()`.
    """

    def stay_in_eval(module, inputs):
        module.eval()

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(stay_in_eval)
