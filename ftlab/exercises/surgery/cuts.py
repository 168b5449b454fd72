"""Cut before the head, take grey images, and swap the batch norms."""

import copy

import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FrozenBatchNorm2d

from ftlab.exercises.behaviour import images, same_model, train
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet
from ftlab.exercises.surgery.models import small_densenet


def check_before_head(answer):
    """A small ResNet and DenseNet: the features, whether the head makes the scores of them, and the model."""
    for model, head in ((SmallResNet(), "fc"), (small_densenet(), "classifier")):
        where = f"With a {type(model).__name__}: "
        kept, batch = copy.deepcopy(model.eval()), images()
        features = answer(model, head, batch)
        hooks = [*model.get_submodule(head)._forward_hooks, *model.get_submodule(head)._forward_pre_hooks]
        if hooks or same_model(model, kept) or type(model.get_submodule(head)) is not nn.Linear:
            text = f"{where}the model that was handed over is not as it was; its head has been changed."
            raise Wrong(text, ask="How would the next call see the scores?")
        layer = model.get_submodule(head)
        if not isinstance(features, torch.Tensor):
            text = f"{where}what came back is of type `{type(features).__name__}`, not a tensor (N, C)."
            raise Wrong(text, ask="What does a hook get, and which part of it are the features?")
        if features.shape != (4, layer.in_features):
            text = f"{where}your features have the shape {tuple(features.shape)}, and do not fit into `{head}`."
            raise Wrong(text, ask="What does `forward` do between the last layers, without a module?")
        if not torch.allclose(layer(features), kept(batch), atol=1e-5):
            text = f"{where}`{head}` makes other scores of your features than the model does."
            raise Wrong(text, ask="Which function stands in `forward`, and is no child of the model?")


def _children(model, head, images):
    return nn.Sequential(*list(model.children())[:-1])(images)


def _children_flat(model, head, images):
    features = _children(model, head, images)
    return features.mean((2, 3))


def _identity_stays(model, head, images):
    model.set_submodule(head, nn.Identity())
    return model(images)


def _hook_stays(model, head, images):
    seen = []
    model.get_submodule(head).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(images)
    return seen[0]


def _scores(model, head, images):
    return model(images)


def _identity_in_a_copy(model, head, images):
    other = copy.deepcopy(model)
    other.set_submodule(head, nn.Identity())
    return other(images)


def _by_extraction(model, head, images):
    return create_feature_extractor(model, {"flatten": "features"})(images)["features"]


@exercise(
    check=check_before_head,
    hints=[
        "Print the children, then read `forward` of a DenseNet. What happens that is no child?",
        "Let the model do its whole forward, and look at what reaches the head.",
        "`layer.register_forward_pre_hook(function)` calls `function(module, inputs)`; the handle it returns can "
        "`.remove()` it.",
    ],
    also_right=[_identity_in_a_copy, _by_extraction],
    mistakes=[
        Mistake(_children, says="your features have the shape"),
        Mistake(_children_flat, says="makes other scores"),
        Mistake(_identity_stays, says="is not as it was"),
        Mistake(_hook_stays, says="is not as it was"),
        Mistake(_scores, says="do not fit into `fc`"),
    ],
    broken=_children,
    remember="`children()` is the list of layers, not the way through them: `forward` is.",
)
def before_head(model: nn.Module, head: str, images: torch.Tensor) -> torch.Tensor:
    """Repair: return what goes into the head of `model` for `images`, as (N, C). `head` is its name.

    The model is a ResNet with its head "fc", or a DenseNet with its head "classifier", in eval mode. It stays as
    it is.
    """
    seen = []
    layer = model.get_submodule(head)
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(images)
    handle.remove()
    return seen[0]


def check_take_grey(answer):
    """A small ResNet: its scores for grey images, against those of before for the same images as colours."""
    model = SmallResNet().eval()
    grey = torch.randn(4, 1, 32, 32)
    before = model(grey.expand(4, 3, 32, 32)).detach()
    answer(model)
    if isinstance(model.conv1, nn.Conv2d):  # a layer around the old one may do as well
        _expect_grey_convolution(model.conv1)
    try:
        after = model.eval()(grey)
    except RuntimeError as error:
        text = f"For images of one channel the model raises `{str(error)[:120]}`."
        raise Wrong(text, ask="What goes into the old convolution now?") from None
    if torch.allclose(after, before, atol=1e-4):
        return
    ask = "A grey image as colours has three equal channels. What does a convolution do with its channels?"
    raise Wrong("For the same images the scores are others than before.", ask=ask)


def _expect_grey_convolution(conv1: nn.Conv2d) -> None:
    if conv1.weight.shape[1] != 1:
        text = f"`model.conv1` still takes {conv1.weight.shape[1]} channels."
        raise Wrong(text, ask="Which attribute of a convolution makes its kernels?")
    if conv1.in_channels != 1 or conv1.stride != (2, 2) or conv1.padding != (3, 3):
        raise Wrong(f"The new convolution is `{conv1}`.", ask="What of the old one should it keep?")


def _with_kernels(model, combine):
    old = model.conv1
    model.conv1 = nn.Conv2d(1, old.out_channels, 7, stride=2, padding=3, bias=False)
    with torch.no_grad():
        model.conv1.weight.copy_(combine(old.weight))


def _grey_by_einsum(model):
    _with_kernels(model, lambda weight: torch.einsum("oihw->ohw", weight)[:, None])


def _grey_in_place(model):
    model.conv1.weight = nn.Parameter(model.conv1.weight.detach().sum(1, keepdim=True))
    model.conv1.in_channels = 1


def _grey_mean(model):
    _with_kernels(model, lambda weight: weight.mean(1, keepdim=True))


def _grey_first(model):
    _with_kernels(model, lambda weight: weight[:, :1])


def _grey_fresh(model):
    model.conv1 = nn.Conv2d(1, model.conv1.out_channels, 7, stride=2, padding=3, bias=False)


def _grey_label(model):
    model.conv1.in_channels = 1


def _grey_defaults(model):
    model.conv1 = nn.Conv2d(1, model.conv1.out_channels, 7, bias=False)


@exercise(
    check=check_take_grey,
    hints=[
        "The kernel has the shape (outputs, 3, 7, 7). What shape must it have for one channel?",
        "Equal channels x: `w0 * x + w1 * x + w2 * x`. Which single kernel gives the same?",
        "`weight.sum(1, keepdim=True)`, and the stride and the padding of the old convolution.",
    ],
    also_right=[_grey_by_einsum, _grey_in_place],
    mistakes=[
        Mistake(_grey_mean, says="others than before"),
        Mistake(_grey_first, says="others than before"),
        Mistake(_grey_fresh, says="others than before"),
        Mistake(_grey_label, says="still takes 3 channels"),
        Mistake(_grey_defaults, says="The new convolution is"),
    ],
    remember="Sum the kernels over the channels: what was learned for colours serves for grey.",
)
def take_grey(model: nn.Module) -> None:
    """Change `model`, a trained ResNet, so that it takes images of one channel.

    It must give the same scores for a grey image (N, 1, H, W) as it gave for that image with three equal
    channels. The first convolution is `model.conv1`; it has no bias.
    """
    old = model.conv1
    new = nn.Conv2d(1, old.out_channels, old.kernel_size, old.stride, old.padding, bias=False)
    new.weight = nn.Parameter(old.weight.detach().sum(1, keepdim=True))
    model.conv1 = new


def check_swap_norms(answer):
    """A small trained ResNet: which norms are left, and its scores in eval mode before and after."""
    model = SmallResNet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.1  # as in EfficientNet, it is not the default
    train(model)
    model.eval()
    batch = images()
    before = model(batch).detach()
    answer(model)
    left = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    if left:
        text = f"{len(left)} batch norms are still there, the first is `{left[0]}`."
        raise Wrong(text, ask="`children()` or `modules()`: which goes all the way down?")
    if not any(isinstance(module, FrozenBatchNorm2d) for module in model.modules()):
        raise Wrong("There is no `FrozenBatchNorm2d` in the model.", ask="What took the place of the norms?")
    if not torch.allclose(model.eval()(batch), before, atol=1e-4):
        text = "In eval mode the scores are others than before."
        raise Wrong(text, ask="Which four tensors and which number does a batch norm use in eval mode?")


def _swap(model, *, load=True, eps=True, deep=True, only_affine=False):
    modules = model.named_modules() if deep else model.named_children()
    for name, old in list(modules):
        if isinstance(old, nn.BatchNorm2d):
            new = FrozenBatchNorm2d(old.num_features, **({"eps": old.eps} if eps else {}))
            state = {k: v for k, v in old.state_dict().items() if not only_affine or "running" not in k}
            if load:
                new.load_state_dict(state, strict=not only_affine)
            model.set_submodule(name, new)


def _swap_by_recursion(model):
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm2d):
            new = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            new.weight, new.bias = child.weight.detach(), child.bias.detach()
            new.running_mean, new.running_var = child.running_mean, child.running_var
            setattr(model, name, new)
        else:
            _swap_by_recursion(child)


def _swap_by_loading_all(model):
    state = model.state_dict()
    _swap(model, load=False)
    model.load_state_dict(state)


def _swap_empty(model):
    from torchvision.ops import FrozenBatchNorm2d

    for name, old in list(model.named_modules()):
        if isinstance(old, nn.BatchNorm2d):
            model.set_submodule(name, FrozenBatchNorm2d(old.num_features))


def _swap_default_eps(model):
    _swap(model, eps=False)


def _swap_children(model):
    _swap(model, deep=False)


def _swap_affine(model):
    _swap(model, only_affine=True)


def _swap_away(model):
    for name, old in list(model.named_modules()):
        if isinstance(old, nn.BatchNorm2d):
            model.set_submodule(name, nn.Identity())


@exercise(
    check=check_swap_norms,
    hints=[
        "Compare the scores in eval mode before and after. A new layer knows nothing of the old one.",
        "`FrozenBatchNorm2d` loads the `state_dict` of a batch norm; `eps` is no part of a `state_dict`.",
        "Make a list of `named_modules()` first, then `model.set_submodule(name, new)` for each norm.",
    ],
    also_right=[_swap_by_recursion, _swap_by_loading_all],
    mistakes=[
        Mistake(_swap_empty, says="others than before"),
        Mistake(_swap_default_eps, says="others than before"),
        Mistake(_swap_children, says="are still there"),
        Mistake(_swap_affine, says="others than before"),
        Mistake(_swap_away, says="There is no `FrozenBatchNorm2d`"),
    ],
    broken=_swap_empty,
    remember="A layer in the place of another takes over its tensors and its numbers, or is a stranger there.",
)
def swap_norms(model: nn.Module) -> None:
    """Repair: put a `torchvision.ops.FrozenBatchNorm2d` in the place of every `nn.BatchNorm2d` in `model`.

    It has the same tensors, but none that moves. In eval mode the model must give the same scores as before.
    """
    from torchvision.ops import FrozenBatchNorm2d

    for name, old in list(model.named_modules()):
        if isinstance(old, nn.BatchNorm2d):
            new = FrozenBatchNorm2d(old.num_features, eps=old.eps)
            new.load_state_dict(old.state_dict())
            model.set_submodule(name, new)
