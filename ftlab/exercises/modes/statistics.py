"""Statistics of other images: learnt without a loss, and without anything else learning."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ftlab.exercises.behaviour import images, moved, snapshot, some
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet


def _modes_of(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def check_recalibrate(answer):
    """The statistics of each batch norm against the mean over all batches; parameters, modes, momentum."""
    model = SmallResNet()
    model.fc = nn.Sequential(nn.Dropout(0.5), model.fc)
    model.eval()
    batches = [images() * 2 + 3 for _ in range(5)]
    before, modes = snapshot(model), _modes_of(model)
    momenta = [module.momentum for module in model.modules() if isinstance(module, _BatchNorm)]
    wanted = _statistics_of(model, batches)
    moving = moved(model, lambda: answer(model, batches))
    parameters = {name for name, _ in model.named_parameters()} & moving
    if parameters:
        raise Wrong(f"{some(parameters)} moved: parameters were trained.", ask="What moves without an optimizer?")
    if not any("running" in name for name in moving):
        ask = "In which mode does batch norm write down what it sees?"
        raise Wrong("No statistic moved.", ask=ask)
    _expect_mean(model, wanted, before)
    if _modes_of(model) != modes:
        raise Wrong("The model came in eval mode, and is not in it any more.", ask="What comes after the loop?")
    if [m.momentum for m in model.modules() if isinstance(m, _BatchNorm)] != momenta:
        raise Wrong("The momentum of the batch norms is another one now.", ask="Who will train this model next?")


def _statistics_of(model: nn.Module, batches: list[Tensor]) -> dict[str, Tensor]:
    """Return for each batch norm the mean over the batches of what it would be given in train mode."""
    copied = copy.deepcopy(model).train()  # in train mode what is stored does not matter
    norms = {name: module for name, module in copied.named_modules() if isinstance(module, _BatchNorm)}
    seen: dict[str, list[Tensor]] = {name: [] for name in norms}
    for name, norm in norms.items():
        norm.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[0].mean((0, 2, 3))))
    with torch.no_grad():
        for batch in batches:
            copied(batch)
    return {name: torch.stack(means).mean(0) for name, means in seen.items()}


def _expect_mean(model: nn.Module, wanted: dict[str, Tensor], before: dict[str, Tensor]) -> None:
    for name, mean in wanted.items():
        found, old = model.get_submodule(name).running_mean, before[f"{name}.running_mean"]
        if torch.allclose(found, mean, atol=1e-3):
            continue
        share = ((found - old) / (mean - old)).median().item()
        text = f"The stored mean of `{name}` is not that of the images; it went {share:.0%} of the way."
        raise Wrong(text, ask="How much of a new batch does a `momentum` of 0.1 take, and what does `None` mean?")


def _with_update_bn(model, batches):
    torch.optim.swa_utils.update_bn(batches, model)
    model.eval()


def _by_hand_with_one_over_n(model, batches):
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
    with torch.no_grad():
        for number, batch in enumerate(batches, start=1):
            for norm in norms:
                norm.momentum = 1 / number
            model(batch)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.eval()
        norm.momentum = momentum


def _passes_in_eval(model, batches):
    with torch.no_grad():
        for batch in batches:
            model(batch)


def _one_round(model, batches):
    model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    model.eval()


def _no_reset(model, batches):
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.num_batches_tracked.fill_(3)
        norm.momentum = None
    _one_round(model, batches)
    for norm in norms:
        norm.momentum = 0.1


def _only_the_last_batch(model, batches):
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    _one_round(model, batches)
    for norm in norms:
        norm.momentum = 0.1


def _momentum_stays_none(model, batches):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    _one_round(model, batches)


def _stays_in_train(model, batches):
    torch.optim.swa_utils.update_bn(batches, model)
    model.train()


def _trains_it(model, batches):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()
    for batch in batches:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
    model.eval()


@exercise(
    check=check_recalibrate,
    broken=_one_round,
    hints=[
        "With a momentum of 0.1, how much of the old mean is left after 5 batches? Work it out: 0.9 ** 5.",
        "`momentum=None` makes a batch norm keep the plain mean over all batches since its last reset.",
        "`reset_running_stats()`, then `momentum = None`, then the loop; and the old momentum back afterwards.",
    ],
    also_right=[_with_update_bn, _by_hand_with_one_over_n],
    mistakes=[
        Mistake(_passes_in_eval, says="No statistic moved"),
        Mistake(_no_reset, says="of the way"),
        Mistake(_only_the_last_batch, says="of the way"),
        Mistake(_momentum_stays_none, says="momentum of the batch norms is another one"),
        Mistake(_stays_in_train, says="is not in it any more"),
        Mistake(_trains_it, says="parameters were trained"),
    ],
    remember="Statistics can be learnt without a loss: `torch.optim.swa_utils.update_bn` does just this.",
)
def recalibrate(model: nn.Module, batches: list) -> None:
    """Repair: give each batch norm of `model` the statistics of the images in `batches`, and change nothing else.

    The stored mean shall be the plain mean over the batches, however few they are, without what was stored
    before. `model` comes in eval mode and is in eval mode afterwards, with the momentum that it had.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
