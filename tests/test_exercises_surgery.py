"""More answers to the exercises of surgery: wrong ones that beginners give, and right ones of other styles."""

import contextlib
import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

import ftlab.surgery
from ftlab.exercises import surgery
from tests.answers import Answers, is_wrong, passes

answers = Answers()
right, wrong = answers.right, answers.wrong

# --- exchange_head


@right(surgery.exchange_head)
def by_ftlab(model, num_classes):
    ftlab.surgery.replace_head(model, num_classes)


@right(surgery.exchange_head)
def by_a_chain_of_cases(model, num_classes):
    if "fc" in dict(model.named_children()):
        model.fc = nn.Linear(model.fc.in_features, num_classes)
        return
    for place, layer in reversed(list(enumerate(model.classifier))):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            size = (layer.in_features,) if isinstance(layer, nn.Linear) else (layer.in_channels,)
            new = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d
            model.classifier[place] = new(*size, num_classes, *([] if new is nn.Linear else [1]))
            return


@wrong(surgery.exchange_head, "has no attribute 'fc'")
def fc_everywhere(model, num_classes):
    model.fc = nn.Linear(model.fc.in_features, num_classes)


@wrong(surgery.exchange_head, "after your change the model raises")
def linear_everywhere(model, num_classes):
    name = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    old = model.get_submodule(name)
    model.set_submodule(name, nn.Linear(getattr(old, "in_features", 0) or old.in_channels, num_classes))


@wrong(surgery.exchange_head, "the scores have the shape (4, 3)")
def in_a_copy(model, num_classes):
    model = copy.deepcopy(model)
    ftlab.surgery.replace_head(model, num_classes)
    return model


# --- load_all_but_head


@right(surgery.load_all_but_head)
def by_a_full_dictionary(model, state_dict, head):
    own = model.state_dict()
    own.update({key: tensor for key, tensor in state_dict.items() if head not in key})
    model.load_state_dict(own)


@right(surgery.load_all_but_head)
def tensor_by_tensor(model, state_dict, head):
    for key, tensor in model.state_dict().items():
        if not key.startswith(head):
            tensor.copy_(state_dict[key])


@right(surgery.load_all_but_head)
def what_fits_before_it_raises(model, state_dict, head):
    with contextlib.suppress(RuntimeError):  # all that fits has been copied when it raises
        model.load_state_dict(state_dict, strict=False)


@wrong(surgery.load_all_but_head, "Missing key(s)")
def strict_without_the_head(model, state_dict, head):
    model.load_state_dict({key: tensor for key, tensor in state_dict.items() if head not in key})


@wrong(surgery.load_all_but_head, "The head of the model has changed")
def zeros_for_the_bias(model, state_dict, head):
    rest = {key: tensor for key, tensor in state_dict.items() if head not in key}
    rest[f"{head}.weight"] = model.state_dict()[f"{head}.weight"]
    rest[f"{head}.bias"] = torch.zeros(5)
    model.load_state_dict(rest)


@wrong(surgery.load_all_but_head, "The model has 3 classes now")
def their_head_too(model, state_dict, head):
    model.set_submodule(head, nn.Linear(model.get_submodule(head).in_features, 3))
    model.load_state_dict(state_dict)


# --- prepare


@right(surgery.prepare)
def with_adamw(model, num_classes):
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


@wrong(surgery.prepare, "You returned a `tuple`")
def model_and_optimizer(model, num_classes):
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


@wrong(surgery.prepare, "the whole network was to train")
def backbone_at_rate_zero(model, num_classes):
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    rest = [p for name, p in model.named_parameters() if "fc" not in name]
    return torch.optim.SGD([{"params": rest, "lr": 0}, {"params": model.fc.parameters()}], lr=0.1)


# --- before_head


@right(surgery.before_head)
def forward_hook_and_finally(model, head, images):
    kept = {}
    handle = model.get_submodule(head).register_forward_hook(lambda m, x, y: kept.update(x=x[0]))
    try:
        with torch.no_grad():
            model(images)
    finally:
        handle.remove()
    return kept["x"]


@right(surgery.before_head)
def identity_and_back(model, head, images):
    kept = model.get_submodule(head)
    model.set_submodule(head, nn.Identity())
    features = model(images)
    model.set_submodule(head, kept)
    return features


@wrong(surgery.before_head, "of type `tuple`, not a tensor")
def the_tuple_of_inputs(model, head, images):
    kept = []
    handle = model.get_submodule(head).register_forward_pre_hook(lambda m, x: kept.append(x))
    model(images)
    handle.remove()
    return kept[0]


@wrong(surgery.before_head, "of type `list`, not a tensor")
def the_list_itself(model, head, images):
    kept = []
    handle = model.get_submodule(head).register_forward_pre_hook(lambda m, x: kept.append(x[0]))
    model(images)
    handle.remove()
    return kept


# --- take_grey


class Repeat(nn.Module):
    """Three equal channels of one."""

    def forward(self, images):
        return images.expand(-1, 3, -1, -1)


@right(surgery.take_grey)
def a_layer_before_it(model):
    model.conv1 = nn.Sequential(Repeat(), model.conv1)


@right(surgery.take_grey)
def by_three_slices(model):
    weight = model.conv1.weight.data
    model.conv1 = nn.Conv2d(1, len(weight), 7, 2, 3, bias=False)
    model.conv1.weight.data[:, 0] = weight[:, 0] + weight[:, 1] + weight[:, 2]


@wrong(surgery.take_grey, "For images of one channel the model raises")
def nothing_before_it(model):
    model.conv1 = nn.Sequential(nn.Identity(), model.conv1)


@wrong(surgery.take_grey, "The new convolution is")
def another_stride(model):
    weight = model.conv1.weight.data.sum(1, keepdim=True)
    model.conv1 = nn.Conv2d(1, len(weight), 7, padding=3, bias=False)
    model.conv1.weight.data = weight


@wrong(surgery.take_grey, "others than before")
def with_a_random_bias(model):
    weight = model.conv1.weight.data.sum(1, keepdim=True)
    model.conv1 = nn.Conv2d(1, len(weight), 7, stride=2, padding=3)
    model.conv1.weight.data = weight


# --- swap_norms


@right(surgery.swap_norms)
def attribute_by_attribute(model):
    for name, old in list(model.named_modules()):
        if isinstance(old, nn.BatchNorm2d):
            new = FrozenBatchNorm2d(old.num_features, old.eps)
            for key, tensor in new.named_buffers():
                tensor.copy_(getattr(old, key).detach())
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, new)


@wrong(surgery.swap_norms, "batch norms are still there")
def only_frozen(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)


@wrong(surgery.swap_norms, "batch norms are still there")
def a_variable_of_the_loop(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module = FrozenBatchNorm2d(module.num_features)


# --- pool_both


@right(surgery.pool_both)
def with_keepdim(features):
    return torch.cat((features.mean((2, 3), keepdim=True), features.amax((2, 3), keepdim=True)), 1)


@wrong(surgery.pool_both, "of type `list`, not a tensor")
def both_in_a_list(features):
    return [nn.AdaptiveAvgPool2d(1)(features), nn.AdaptiveMaxPool2d(1)(features)]


@wrong(surgery.pool_both, "you return (2, 6)")
def flattened(features):
    return torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)


@wrong(surgery.pool_both, "you return (2, 2, 3, 1, 1)")
def stacked(features):
    return torch.stack([nn.AdaptiveAvgPool2d(1)(features), nn.AdaptiveMaxPool2d(1)(features)], 1)


# --- rebuild


@right(surgery.rebuild)
def flag_by_flag(model, pool, num_classes):
    width = model.fc.in_features * 2
    model.avgpool, model.fc = pool, nn.Linear(width, num_classes)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("fc")
    return model


@wrong(surgery.rebuild, "mat1 and mat2")
def under_another_name(model, pool, num_classes):
    model.requires_grad_(False)
    model.pool = pool
    model.fc = nn.Linear(2 * model.fc.in_features, num_classes)
    return model


@wrong(surgery.rebuild, "gives (4, 7)")
def seven_classes(model, pool, num_classes):
    model.requires_grad_(False)
    model.avgpool = pool
    model.fc = nn.Linear(2 * model.fc.in_features, 7)
    return model


# --- own_branches


@right(surgery.own_branches)
def copies_of_the_whole_branch(model, count, num_classes):
    tail = nn.Sequential(model.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(num_classes))
    return nn.ModuleList(copy.deepcopy(tail) for _ in range(count))


@wrong(surgery.own_branches, "Branch 0 cannot work with what `model.layer3` gives")
def without_flatten(model, count, num_classes):
    return nn.ModuleList(
        nn.Sequential(copy.deepcopy(model.layer4), nn.AdaptiveAvgPool2d(1), nn.Linear(64, num_classes))
        for _ in range(count)
    )


@wrong(surgery.own_branches, "You returned a `ModuleDict`, whose branches have names")
def by_name(model, count, num_classes):
    tails = [surgery.own_branches.function(model, 1, num_classes)[0] for _ in range(count)]
    return nn.ModuleDict({f"branch{number}": tail for number, tail in enumerate(tails)})


@wrong(surgery.own_branches, "You returned 1 branches instead of 3")
def only_one(model, count, num_classes):
    return surgery.own_branches.function(model, 1, num_classes)


@wrong(surgery.own_branches, "in common")
def one_head_for_all(model, count, num_classes):
    head = nn.Linear(model.fc.in_features, num_classes)
    return nn.ModuleList(
        nn.Sequential(copy.deepcopy(model.layer4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
        for _ in range(count)
    )


@wrong(surgery.own_branches, "You returned one `Linear`, not several branches")
def the_head_alone(model, count, num_classes):
    return nn.Linear(model.fc.in_features, num_classes)


# --- predictions


@wrong(surgery.count_tensors, "Three whole numbers")
def as_text():
    return "2, 22, 4"


@wrong(surgery.same_training, "`dropout, cross_entropy`: no such name is in the task")
def an_unknown_pair():
    return {"dropout, cross_entropy"}


@pytest.mark.parametrize(("exercise", "answer"), answers.rights)
def test_right_in_another_style(exercise, answer):
    passes(exercise, answer)


@pytest.mark.parametrize(("exercise", "answer", "says"), answers.wrongs)
def test_wrong_and_told_why(exercise, answer, says):
    is_wrong(exercise, answer, says)
