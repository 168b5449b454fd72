"""Transfer: switches set for a purpose. Features to keep, and uncertainty by dropout."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ftlab.exercises.behaviour import images, moved, some
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet
from ftlab.modes import evaluating, keep_modes


def _backbone() -> nn.Module:
    backbone = SmallResNet()
    backbone.fc = nn.Dropout(0.5)
    backbone.bn1.eval()  # held by hand
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            module.running_var.uniform_(0.5, 1.5)
    return backbone


def check_cache_features(answer):
    """The features of two batches in eval mode; whether a head learns from them; modes, statistics, the graph."""
    backbone, batches = _backbone(), [images(), images(2)]
    with evaluating(backbone):
        wanted = torch.cat([backbone(batch) for batch in batches])
    before = _modes_of(backbone)
    found: list = []
    drifting = moved(backbone, lambda: found.append(answer(backbone, batches)))
    features = found[0]
    if drifting:
        raise Wrong(f"{some(drifting)} of the backbone moved.", ask="In which mode did the images go through?")
    if not isinstance(features, Tensor) or features.shape != wanted.shape:
        raise Wrong("Not one tensor with a row per image came back.", ask="How are batches put together again?")
    if not torch.allclose(features, wanted, atol=1e-4):
        text = (
            "The features are not those of eval mode: some are 0 by chance, or depend on the rest of their batch."
        )
        raise Wrong(text, ask="Which two kinds of modules ask for the mode?")
    if features.requires_grad:
        text = "The features carry the graph of the whole backbone, and keep its results in memory."
        raise Wrong(text, ask="Which switch leaves the graph away?")
    _expect_a_head_learns(features)
    if _modes_of(backbone) != before:
        raise Wrong(
            "The backbone has not got back the modes that it had.", ask="Module by module: what was there?"
        )


def _expect_a_head_learns(features: Tensor) -> None:
    head = nn.Linear(features.shape[1], 2)
    try:
        head(features).square().mean().backward()
    except RuntimeError as error:
        text = f"A head that trains on them raised `{str(error).partition('.')[0]}`."
        raise Wrong(
            text, ask="Which switch marks its results for good, and which other one leaves no mark?"
        ) from None


def _modes_of(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def _in_inference_mode(backbone, batches):
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    with torch.inference_mode():
        features = torch.cat([backbone(batch) for batch in batches])
    for module, training in modes:
        module.training = training
    return features


def _cloned_outside(backbone, batches):
    return _in_inference_mode(backbone, batches).clone()


def _with_evaluating(backbone, batches):
    with evaluating(backbone):
        return torch.cat([backbone(batch) for batch in batches])


def _clone_inside(backbone, batches):
    with evaluating(backbone), torch.inference_mode():
        return torch.cat([backbone(batch).clone() for batch in batches])


def _detach_inference(backbone, batches):
    return _in_inference_mode(backbone, batches).detach()


def _with_graph(backbone, batches):
    with keep_modes(backbone):
        return torch.cat([backbone.eval()(batch) for batch in batches])


def _in_train_mode(backbone, batches):
    with torch.no_grad():
        return torch.cat([backbone(batch) for batch in batches])


def _eval_stays(backbone, batches):
    backbone.eval()
    with torch.no_grad():
        return torch.cat([backbone(batch) for batch in batches])


def _train_afterwards(backbone, batches):
    features = _eval_stays(backbone, batches)
    backbone.train()
    return features


def _a_list(backbone, batches):
    return list(_with_evaluating(backbone, batches))


@exercise(
    check=check_cache_features,
    broken=_in_inference_mode,
    hints=[
        "Give the result to a new `nn.Linear`, and call `backward`. What does PyTorch say?",
        "`inference_mode` marks what is made in it. `no_grad` does not.",
        "`torch.no_grad()` in its place is enough; a `.clone()` outside of the block would do as well.",
    ],
    also_right=[_cloned_outside, _with_evaluating],
    mistakes=[
        Mistake(_clone_inside, says="Inference tensors cannot be saved for backward"),
        Mistake(_detach_inference, says="Inference tensors cannot be saved for backward"),
        Mistake(_with_graph, says="carry the graph"),
        Mistake(_in_train_mode, says="of the backbone moved"),
        Mistake(_eval_stays, says="has not got back the modes"),
        Mistake(_train_afterwards, says="has not got back the modes"),
        Mistake(_a_list, says="Not one tensor"),
    ],
    remember="`inference_mode` is for results that end here. Whatever is to train something later: `no_grad`.",
)
def cache_features(backbone: nn.Module, batches: list) -> torch.Tensor:
    """Repair: return the features of all images, on which a new head will be trained afterwards.

    They are those of eval mode, without a graph, one row per image. The backbone is left as it was.
    """
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    with torch.no_grad():
        features = torch.cat([backbone(batch) for batch in batches])
    for module, training in modes:
        module.training = training
    return features


def _uncertain() -> nn.Module:
    model = SmallResNet()
    model.fc = nn.Sequential(nn.Dropout(0.3), nn.Linear(64, 16), nn.Dropout(0.3), nn.Linear(16, 3))
    return model.eval()


def check_sample_predictions(answer):
    """Shape and spread of six samples; the same images alone and in a batch; statistics, modes, the graph."""
    model, batch = _uncertain(), images()
    before = _modes_of(model)
    found: list = []
    drifting = moved(model, lambda: found.append(answer(model, batch, 6)))
    samples = found[0]
    if drifting:
        text = f"{some(drifting)} moved: the images were learnt, not only looked at."
        raise Wrong(text, ask="Which modules must stay in eval mode, and which not?")
    if not isinstance(samples, Tensor) or samples.shape != (6, 4, 3):
        shape = tuple(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
        raise Wrong(f"For 6 samples of 4 images with 3 classes you gave {shape}.", ask="Which dimension is new?")
    if not samples.std(0).any():
        raise Wrong("All samples are the same.", ask="Who could make them differ, and in which mode?")
    if samples.requires_grad:
        raise Wrong("The samples carry a graph.", ask="Which switch leaves it away?")
    if not torch.allclose(samples.sum(2), torch.ones(6, 4), atol=1e-4):
        raise Wrong("The classes of an image do not add up to 1.", ask="What makes probabilities of scores?")
    _expect_the_batch_not_to_matter(answer, model, batch)
    if _modes_of(model) != before:
        raise Wrong("The model has not got back the modes that it had.", ask="Which module did you wake?")
    _expect_all_dropouts(answer)


def _expect_the_batch_not_to_matter(answer, model, batch) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    together, alone = answer(model, batch, 1)[0, :2], answer(model, batch[:2], 1)[0]
    if not torch.allclose(together, alone, atol=1e-4):
        text = "With dropout taken out, an image still depends on the other images of its batch."
        raise Wrong(text, ask="Which modules look at the whole batch in train mode?")


def _expect_all_dropouts(answer) -> None:
    model = _uncertain()
    runs: list[list[bool]] = []
    hook = model.fc.register_forward_pre_hook(lambda module, args: runs.append([m.training for m in module]))
    answer(model, images(), 2)
    hook.remove()
    if not all(modes[0] and modes[2] for modes in runs):
        raise Wrong("Only one of the two dropouts in the head was awake.", ask="How do you find all of them?")


def _sample_by_copy(model, images, samples):
    awake = copy.deepcopy(model).eval()
    awake.apply(lambda module: module.train() if isinstance(module, nn.Dropout) else None)
    with torch.inference_mode():
        found = torch.stack([awake(images).softmax(1) for _ in range(samples)])
    return found.clone()


def _sample_with_keep_modes(model, images, samples):
    with evaluating(model):
        for module in model.modules():
            module.training = isinstance(module, nn.Dropout)
        return torch.stack([torch.softmax(model(images), dim=1) for _ in range(samples)])


@torch.no_grad()
def _all_in_train_mode(model, images, samples):
    model.train()
    found = torch.stack([model(images).softmax(1) for _ in range(samples)])
    model.eval()
    return found


@torch.no_grad()
def _all_in_eval_mode(model, images, samples):
    model.eval()
    return torch.stack([model(images).softmax(1) for _ in range(samples)])


@torch.no_grad()
def _left_awake(model, images, samples):
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    return torch.stack([model(images).softmax(1) for _ in range(samples)])


def _graph_kept(model, images, samples):
    found = _left_awake.__wrapped__(model, images, samples)
    model.eval()
    return found


@torch.no_grad()
def _scores(model, images, samples):
    found = _left_awake.__wrapped__(model, images, samples).log()
    model.eval()
    return found


@torch.no_grad()
def _only_the_first_dropout(model, images, samples):
    model.eval()
    model.fc[0].train()
    found = torch.stack([model(images).softmax(1) for _ in range(samples)])
    model.eval()
    return found


@torch.no_grad()
def _the_mean(model, images, samples):
    found = _left_awake(model, images, samples).mean(0)
    model.eval()
    return found


@torch.no_grad()
def _norms_by_momentum(model, images, samples):
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    for norm in norms:
        norm.momentum = 0.0
    found = torch.stack([model(images).softmax(1) for _ in range(samples)])
    model.load_state_dict(before)
    model.eval()
    return found


@exercise(
    check=check_sample_predictions,
    hints=[
        "Dropout has to be awake, batch norm must not be. Modes are set module by module.",
        "First all in eval mode; then `train()` for each module that is an `nn.Dropout`.",
        "`torch.stack` makes a new first dimension. In the end the dropouts go back to eval mode.",
    ],
    also_right=[_sample_by_copy, _sample_with_keep_modes],
    mistakes=[
        Mistake(_all_in_train_mode, says="the images were learnt"),
        Mistake(_all_in_eval_mode, says="All samples are the same"),
        Mistake(_left_awake, says="has not got back the modes"),
        Mistake(_graph_kept, says="The samples carry a graph"),
        Mistake(_scores, says="do not add up to 1"),
        Mistake(_only_the_first_dropout, says="Only one of the two dropouts"),
        Mistake(_the_mean, says="you gave (4, 3)"),
        Mistake(_norms_by_momentum, says="still depends on the other images"),
    ],
    remember="Modes are set module by module: dropout awake and batch norm held is a model, too.",
)
def sample_predictions(model: nn.Module, images: torch.Tensor, samples: int) -> torch.Tensor:
    """Transfer: return probabilities (samples, N, classes) of `samples` passes with dropout awake.

    How far they lie apart tells how sure the model is of an image (Monte Carlo dropout). Batch norm goes on using
    what it has stored, no graph is kept, and `model`, which comes in eval mode, is left as it was.
    """
    model.eval()
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    for module in dropouts:
        module.train()
    with torch.no_grad():
        found = torch.stack([model(images).softmax(1) for _ in range(samples)])
    for module in dropouts:
        module.eval()
    return found
