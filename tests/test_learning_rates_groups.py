"""Groups by pattern, groups by depth, and the X-ray that looks at what an optimizer has."""

import copy
import inspect
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torchvision import models
from torchvision.models.regnet import BlockParams

from ftlab.exercises.behaviour import same_model
from ftlab.exercises.models import SmallResNet, small_mobilenet, small_vit
from ftlab.learning_rates import layer_decay, parameter_groups, xray
from ftlab.learning_rates.decay import depths
from ftlab.learning_rates.options import misspelt


def in_groups(groups):
    return [id(parameter) for group in groups for parameter in group["params"]]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Embedding(4, 3), nn.Linear(3, 4)
        self.last.weight = self.first.weight


# --- parameter_groups


@given(st.sets(st.sampled_from(["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"])), st.booleans())
@settings(max_examples=20, deadline=None)
def test_every_trainable_parameter_is_in_exactly_one_group(names, no_decay):
    model = SmallResNet()
    model.layer2.requires_grad_(False)
    rates = dict.fromkeys(sorted(names - {"layer2"}), 0.1)
    groups = parameter_groups(model, rates, default=0.01, no_decay=no_decay)
    assert sorted(in_groups(groups)) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert rate[id(parameter)] == (0.1 if name.split(".")[0] in rates else 0.01)


def test_what_is_in_no_group_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"2 trainable parameters are in no group: '1.weight', '1.bias'; add"):
        parameter_groups(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), {"0": 0.1})


def test_what_two_patterns_want_is_an_error_that_names_both():
    model = SmallResNet()
    with pytest.raises(ValueError, match=r"both 'layer4' and '\*.bias' choose 'layer4.0.bn1.bias'"):
        parameter_groups(model, {"layer4": 0.1, "*.bias": 0.2}, default=0.01)


def test_a_name_is_whole_and_never_its_beginning():
    model = small_mobilenet()
    (first, _) = parameter_groups(model, {"features.1": 0.1}, default=0.01)
    assert sorted(map(id, first["params"])) == sorted(map(id, model.features[1].parameters()))


def test_patterns_are_names_globs_modules_functions_and_several_of_them():
    model = SmallResNet()

    def norms(name, parameter):
        return ".bn" in name

    rates = {"*.conv?.weight": 1.0, model.fc: 2.0, norms: 3.0, ("conv1", "bn1", "*.downsample.*"): 4.0}
    groups = parameter_groups(model, rates)
    assert [group["name"] for group in groups] == [
        "*.conv?.weight",
        "fc",
        "norms",
        "conv1 + bn1 + *.downsample.*",
    ]
    assert len(in_groups(groups)) == len(list(model.parameters()))


def test_a_tied_parameter_is_in_one_group_once_and_an_error_under_two():
    model = Tied()
    groups = parameter_groups(model, {"last": 0.1})
    assert len(in_groups(groups)) == len(set(in_groups(groups))) == 2
    SGD(groups)
    with pytest.raises(ValueError, match=r"both 'first' and 'last' choose 'first.weight' = 'last.weight'"):
        parameter_groups(model, {"first": 0.1, "last": 0.2})


def test_biases_and_norms_get_no_weight_decay():
    model = small_vit()
    optimizer = AdamW(parameter_groups(model, {"heads": 0.1}, default=0.01, no_decay=True), weight_decay=0.3)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    norms = [p for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()]
    assert {decay[id(p)] for p in norms} == {0.0}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.0 if parameter.ndim == 1 else 0.3), name
    weights = nn.LayerNorm((2, 3))
    assert parameter_groups(weights, {}, default=0.1, no_decay=True)[0]["weight_decay"] == 0.0


def test_frozen_parameters_are_left_out_or_taken_along():
    model = SmallResNet().requires_grad_(False)
    model.fc.requires_grad_(True)
    assert len(in_groups(parameter_groups(model, {"fc": 0.1}))) == 2
    both = parameter_groups(model, {"fc": 0.1}, default=0.01, frozen=True)
    assert len(in_groups(both)) == len(list(model.parameters()))
    with pytest.raises(ValueError, match=r"'layer4' chooses \d+ parameters, all of them frozen"):
        parameter_groups(model, {"fc": 0.1, "layer4": 0.2})


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"weight_dacay": 0.1}, ValueError, "no option 'weight_dacay'; did you mean 'weight_decay'"),
        ({"learning_rate": 0.1}, ValueError, "did you mean 'lr'"),
        ({"params": []}, ValueError, "leave 'params' out"),
        (-0.1, ValueError, "0 or more, not -0.1"),
        (float("nan"), ValueError, "0 or more"),
        ("0.1", TypeError, "a number, not '0.1'"),
        (True, TypeError, "a number, not True"),
    ],
)
def test_what_an_optimizer_would_accept_is_refused(options, error, says):
    with pytest.raises(error, match=says):
        parameter_groups(nn.Linear(1, 1), {"weight": options}, default=0.1)


def test_a_name_that_chooses_nothing_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="the nearest"):
        parameter_groups(SmallResNet(), {"layer44": 0.1}, default=0.01)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda m: parameter_groups(m, {(): 0.1}, default=1), ValueError, "an empty tuple chooses nothing"),
        (lambda m: parameter_groups(m, {nn.Linear: 0.1}, default=1), TypeError, "the class Linear is no pattern"),
        (
            lambda m: parameter_groups(m.requires_grad_(False), {}, default=1),
            ValueError,
            "nothing .* is trainable",
        ),
        (lambda m: parameter_groups(nn.ReLU(), {}, default=1), ValueError, "nothing .* is trainable"),
    ],
)
def test_what_would_make_no_group_is_refused(make, error, says):
    with pytest.raises(error, match=says):
        make(SmallResNet())


def test_a_name_among_the_options_is_the_name_of_the_group():
    rates = {"fc": {"lr": 0.1, "name": "head"}}
    groups = parameter_groups(SmallResNet(), rates, default={"lr": 0.01, "name": "rest"}, no_decay=True)
    assert [group["name"] for group in groups] == ["head", "head, no decay", "rest", "rest, no decay"]
    assert rates["fc"]["name"] == "head"  # what was given is as it was


def test_names_stay_in_the_optimizer_and_in_its_state():
    model = SmallResNet()
    optimizer = SGD(parameter_groups(model, {"fc": {"lr": 0.1, "momentum": 0.9}}, default=0.01), weight_decay=0.2)
    assert [(g["name"], g["lr"], g["momentum"], g["weight_decay"]) for g in optimizer.param_groups] == [
        ("fc", 0.1, 0.9, 0.2),
        ("default", 0.01, 0, 0.2),
    ]
    assert [group["name"] for group in optimizer.state_dict()["param_groups"]] == ["fc", "default"]


@pytest.mark.parametrize(
    "look", [lambda m: parameter_groups(m, {}, default=0.1), lambda m: layer_decay(m, 0.1, 0.5)]
)
def test_making_groups_changes_nothing(look):
    model = SmallResNet()
    model.layer1.eval().requires_grad_(False)
    before, state = copy.deepcopy(model), torch.get_rng_state()
    look(model)
    assert same_model(model, before) == []
    assert torch.equal(state, torch.get_rng_state())


# --- layer_decay

FAMILIES = {
    "alexnet": (8, "features.0", "classifier.6"),
    "convnext_tiny": (23, "features.0.0, features.0.1", "classifier.2"),
    "densenet121": (63, "features.conv0, features.norm0", "classifier"),
    "efficientnet_b0": (19, "features.0.0, features.0.1", "classifier.1"),
    "efficientnet_v2_s": (43, "features.0.0, features.0.1", "classifier.1"),
    "googlenet": (13, "conv1", "fc, aux1, aux2"),
    "inception_v3": (17, "Conv2d_1a_3x3", "fc, AuxLogits"),
    "maxvit_t": (15, "stem.0.0, stem.0.1", "classifier.5"),
    "mnasnet0_5": (21, "layers.0, layers.1", "classifier.1"),
    "mobilenet_v2": (20, "features.0.0, features.0.1", "classifier.1"),
    "mobilenet_v3_small": (15, "features.0.0, features.0.1", "classifier.3"),
    "regnet_y_400mf": (18, "stem.0, stem.1", "fc"),
    "resnet18": (10, "conv1, bn1", "fc"),
    "resnet50": (18, "conv1, bn1", "fc"),
    "resnext50_32x4d": (18, "conv1, bn1", "fc"),
    "shufflenet_v2_x0_5": (19, "conv1.0, conv1.1", "fc"),
    "squeezenet1_0": (10, "features.0", "classifier.1"),
    "swin_t": (17, "features.0.0, features.0.2", "head"),
    "swin_v2_t": (17, "features.0.0, features.0.2", "head"),
    "vgg11": (11, "features.0", "classifier.6"),
    "vgg11_bn": (11, "features.0, features.1", "classifier.6"),
    "vit_b_16": (14, "conv_proj", "heads.head"),
    "wide_resnet50_2": (18, "conv1, bn1", "fc"),
}


def build(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("regnet"):  # its sizes are computed with tensors
        return models.get_model(name)
    with torch.device("meta"):
        return models.get_model(name, **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_its_blocks_from_the_image_to_the_head(name):
    model = build(name)
    blocks = depths(model)
    assert (len(blocks), blocks[0][0], blocks[-1][0]) == FAMILIES[name]
    ids = [id(p) for _, parameters in blocks for p in parameters]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())


def test_no_family_of_torchvision_is_forgotten():
    modules = {models.get_model_builder(name).__module__ for name in models.list_models(module=models)}
    assert {models.get_model_builder(name).__module__ for name in FAMILIES} == modules


REGNETS = {  # from the size to the blocks of its trunk
    "x_400mf": 22, "x_800mf": 16, "x_1_6gf": 18, "x_3_2gf": 25, "x_8gf": 23, "x_16gf": 22, "x_32gf": 23,
    "y_400mf": 16, "y_800mf": 14, "y_1_6gf": 27, "y_3_2gf": 21, "y_8gf": 17, "y_16gf": 18, "y_32gf": 20,
    "y_128gf": 27,
}  # fmt: skip


@pytest.mark.parametrize("size", REGNETS)
def test_every_size_of_regnet_has_its_blocks(size, monkeypatch):
    compute = BlockParams.from_init_params

    def on_cpu(**options):  # it computes the sizes with tensors
        with torch.device("cpu"):
            return compute(**options)

    monkeypatch.setattr(BlockParams, "from_init_params", on_cpu)
    with torch.device("meta"):
        model = models.get_model(f"regnet_{size}", num_classes=8)
    groups = layer_decay(model, lr=1.0, decay=0.9)
    assert len(groups) == REGNETS[size] + 2  # and the stem, and the head
    assert [group["lr"] for group in groups] == [0.9**depth for depth in range(len(groups) - 1, -1, -1)]
    assert groups[0]["name"] == "stem.0, stem.1"
    assert groups[1]["name"] == "trunk_output.block1.block1-0"
    assert groups[-1]["name"] == "fc"
    assert sorted(in_groups(groups)) == sorted(id(p) for p in model.parameters())


def test_no_size_of_regnet_is_forgotten():
    assert {f"regnet_{size}" for size in REGNETS} == set(models.list_models(module=models, include="regnet*"))


def test_a_network_in_ones_own_class_goes_on_where_its_head_begins():
    own = nn.ModuleDict({"backbone": SmallResNet(), "head": nn.Linear(64, 8)})
    own["backbone"].fc = nn.Identity()
    new = {"params": own["head"].parameters(), "lr": 1.0}
    groups = AdamW([*layer_decay(own["backbone"], lr=1.0 * 0.5, decay=0.5), new]).param_groups
    assert [group["lr"] for group in groups] == [0.5**depth for depth in range(len(groups) - 1, -1, -1)]
    assert sorted(in_groups(groups)) == sorted(id(p) for p in own.parameters())


def test_a_layer_alone_is_called_by_its_kind():
    assert [group["name"] for group in layer_decay(nn.Linear(2, 2), 0.1, 0.5)] == ["Linear"]


def test_the_depth_is_the_order_of_the_forward():
    """The blocks of a model are left in the order of their depth when an image runs through it."""
    for model in (SmallResNet(), small_mobilenet(), small_vit()):
        order, handles = [], []
        for depth, (label, _) in enumerate(depths(model)):
            module = model.get_submodule(label.split(", ")[0])
            handles.append(module.register_forward_hook(lambda *_, depth=depth, order=order: order.append(depth)))
        model.eval()(torch.zeros(1, 3, 32, 32))
        assert order == sorted(order)
        assert len(order) == len(handles)


def test_rates_fall_from_the_head_to_the_image():
    model = models.resnet18()
    groups = layer_decay(model, lr=1.0, decay=0.5, weight_decay=0.1)
    assert [group["lr"] for group in groups] == [0.5**steps for steps in range(9, -1, -1)]
    assert [group["depth"] for group in groups] == list(range(10))
    assert sorted(in_groups(groups)) == sorted(id(p) for p in model.parameters())
    assert {group["weight_decay"] for group in AdamW(groups).param_groups} == {0.1}
    assert "layer4.1" in repr(groups)


def test_bare_parameters_have_the_first_rate_and_frozen_ones_none():
    model = small_vit()
    rate = {id(p): group["lr"] for group in layer_decay(model, 1.0, 0.5) for p in group["params"]}
    first = rate[id(model.conv_proj.weight)]
    assert rate[id(model.class_token)] == rate[id(model.encoder.pos_embedding)] == first == min(rate.values())
    model.conv_proj.requires_grad_(False)
    groups = layer_decay(model, 1.0, 0.5)
    assert id(model.conv_proj.weight) not in in_groups(groups)
    assert groups[-1]["lr"] == 1.0  # the depths do not move when something is frozen
    assert groups[0]["lr"] == first


def test_no_decay_splits_each_block():
    groups = layer_decay(SmallResNet(), 1.0, 0.5, no_decay=True, weight_decay=0.1)
    assert {(g["weight_decay"], all(p.ndim == 1 for p in g["params"])) for g in groups} == {
        (0.1, False),
        (0.0, True),
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"lr": 0.1, "decay": 0}, "above 0 and at most 1"),
        ({"lr": 0.1, "decay": 2.6}, "above 0 and at most 1"),
        ({"lr": -1, "decay": 0.5}, "0 or more"),
        ({"lr": 1, "decay": 0.5, "weight_dekay": 0}, "did you mean 'weight_decay'"),
    ],
)
def test_layer_decay_refuses_what_makes_no_sense(arguments, says):
    with pytest.raises(ValueError, match=says):
        layer_decay(SmallResNet(), **arguments)


def test_layer_decay_opens_what_is_wrapped_around_a_model():
    model = SmallResNet()
    plain = [(group["name"], group["depth"]) for group in layer_decay(model, 1.0, 0.5)]
    assert len(plain) > 4
    for wrapped in (nn.DataParallel(model), torch.compile(model)):
        assert [(group["name"], group["depth"]) for group in layer_decay(wrapped, 1.0, 0.5)] == plain


@pytest.mark.parametrize("decay", ["0.7", None])
def test_a_decay_is_a_number(decay):
    with pytest.raises(TypeError, match="decay has to be of type int or float"):
        layer_decay(SmallResNet(), 0.1, decay)


def test_layer_decay_needs_something_trainable():
    with pytest.raises(ValueError, match="nothing in the model is trainable"):
        layer_decay(SmallResNet().requires_grad_(False), 0.1, 0.5)


# --- xray


def flagged(model, optimizer):
    return xray(model, optimizer).flags


def test_a_sound_optimizer_has_no_flags():
    model = SmallResNet()
    found = xray(model, AdamW(parameter_groups(model, {"fc": 0.1}, default=0.01, no_decay=True)))
    assert found.ok
    assert found.flags == {}
    assert "nothing is wrong" in repr(found)


def test_a_replaced_head_is_orphan_and_the_old_one_stale():
    model = SmallResNet()
    optimizer = SGD(parameter_groups(model, {"fc": 0.1}, default=0.01))
    model.fc = nn.Linear(64, 5)
    found = xray(model, optimizer)
    assert found.flags == {"orphan": ["fc.weight", "fc.bias"], "stale": ["fc, place 0", "fc, place 1"]}
    assert not found.ok


def test_a_frozen_one_in_a_group_is_said_and_is_no_fault():
    model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2))
    found = xray(model, SGD(model.parameters()))
    assert found.flags == {"frozen in a group": ["0.weight", "0.bias"]}
    assert found.ok


def test_duplicates_by_identity_within_a_group_and_over_optimizers():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twice = SGD([*model.parameters(), model[0].weight])
    assert flagged(model, twice) == {"duplicate": ["0.weight"]}
    both = flagged(model, [SGD(model.parameters()), AdamW(model[1].parameters())])
    assert both == {"duplicate": ["1.weight", "1.bias"]}


def test_duplicates_by_storage():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.detach())  # another object, the same numbers
    assert flagged(model, SGD(model.parameters())) == {"duplicate": ["0.weight", "1.weight"]}
    whole = torch.zeros(8)
    model[0].weight, model[1].weight = nn.Parameter(whole[:4].view(2, 2)), nn.Parameter(whole[4:].view(2, 2))
    assert flagged(model, SGD(model.parameters())) == {}


def test_a_tie_is_one_tensor_with_two_names():
    model = Tied()
    found = xray(model, SGD(model.parameters()))
    assert found.flags == {}
    assert [tensor.name for tensor in found.tensors] == ["first.weight = last.weight", "last.bias"]


def test_options_and_rates_that_optimizers_accept():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    used_up = (p for p in ())
    optimizer = SGD(
        [
            {"params": model[0].parameters(), "lr": -1, "weight_dacay": 0.1},
            {"params": model[1].parameters(), "lr": 0.0, "name": "sleeping"},
            {"params": model[2].parameters(), "lr": 0.1, "learning_rate": 0.1},
            {"params": used_up},
        ]
    )
    assert flagged(model, optimizer) == {
        "negative rate": ["0.weight", "0.bias"],
        "rate 0": ["1.weight", "1.bias"],
        "misspelt option": [
            "group 0: 'weight_dacay', probably 'weight_decay'",
            "group 2: 'learning_rate', probably 'lr'",
        ],
        "empty group": ["group 3"],
    }


def test_a_rate_that_is_a_text_is_named_and_not_stumbled_over():
    model = nn.Linear(2, 1)
    optimizer = SGD([{"params": model.parameters(), "lr": "1e-3"}])
    found = xray(model, optimizer)
    assert found.flags == {"no number as rate": ["weight", "bias"]}
    assert found.tensors[0].lr is None
    assert not found.ok
    model(torch.ones(1, 2)).sum().backward()
    with pytest.raises(TypeError):  # as the advice says
        optimizer.step()


@pytest.mark.parametrize(
    "kind",
    [
        k
        for k in vars(torch.optim).values()
        if inspect.isclass(k) and issubclass(k, Optimizer) and k is not Optimizer
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_optimizer_can_be_looked_at_before_and_after_a_step(kind):
    bias = kind is not torch.optim.Muon  # takes matrices only
    model = nn.Linear(3, 2, bias=bias)
    optimizer = kind(model.parameters(), lr=0.1)
    assert xray(model, optimizer).ok
    fresh = any(tensor.state for tensor in xray(model, optimizer).tensors)
    assert fresh == bool(optimizer.state_dict()["state"]) == (kind is torch.optim.Adagrad)
    if kind is torch.optim.SparseAdam:
        model = nn.Embedding(3, 2, sparse=True)
        optimizer = kind(model.parameters(), lr=0.1)

    def loss():
        optimizer.zero_grad()
        value = model(torch.tensor([1]) if kind is torch.optim.SparseAdam else torch.ones(1, 3)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    found = xray(model, optimizer)
    assert found.ok
    assert {tensor.state for tensor in found.tensors} == {bool(optimizer.state_dict()["state"])}
    assert [tensor.lr for tensor in found.tensors] == pytest.approx([0.1] * len(found.tensors))


def test_optimizers_are_found_and_their_absence_is_said():
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="no optimizer that owns a parameter of this model"):
        xray(model)
    optimizer = SGD(model.parameters(), lr=0.3)
    assert {tensor.lr for tensor in xray(model).tensors} == {0.3}
    del optimizer


def test_the_table_joins_neighbours_and_can_show_every_tensor():
    model = SmallResNet()
    found = xray(model, SGD(parameter_groups(model, {"fc": 0.1}, default=0.01)))
    assert [row["tensors"] for row in found.table().to_dict()] == [
        "conv1.weight to layer4.0.downsample.1.bias",
        "fc.weight to fc.bias",
    ]
    assert len(found.table(every=True)) == len(list(model.parameters())) == len(found.to_dict()["tensors"])
    assert "<table>" in found._repr_html_()


def test_looking_changes_nothing():
    model = SmallResNet()
    optimizer = SGD(model.parameters(), momentum=0.9)
    before, state, random = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict()), torch.get_rng_state()
    xray(model, optimizer)
    assert same_model(model, before) == []
    assert optimizer.state_dict() == state
    assert not optimizer.state  # a defaultdict: a look must not fill it
    assert torch.equal(random, torch.get_rng_state())


def test_named_parameters_give_their_names_to_the_stale():
    model = nn.Linear(2, 2)
    optimizer = SGD(model.named_parameters())
    assert xray(nn.Linear(1, 1), optimizer).flags["stale"] == ["weight of group 0", "bias of group 0"]


def test_notes_of_the_owner_are_no_misspelt_options():
    known = ["lr", "weight_decay", "momentum", "maximize"]
    assert [misspelt(option, known) for option in ("name", "depth", "initial_lr", "lr", "my_own_note")] == [
        None
    ] * 5
    assert misspelt("momentun", known) == "momentum"
