"""Choosing, freezing and unfreezing; what the receipt says."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, vit_b_16

from ftlab.freezing import freeze, select, unfreeze


class Lookalikes(nn.Module):
    """Names that contain each other: the substring trap."""

    def __init__(self):
        super().__init__()
        for name in ("id", "text_id", "fc", "fc2", "layer1", "layer10"):
            setattr(self, name, nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x):
        for name in ("layer1", "layer10", "id", "text_id", "fc", "fc2"):
            x = getattr(self, name)(x)
        return x * self.scale


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x):
        return self.out(self.embedding(x))


def trainable(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


# choosing


@pytest.mark.parametrize("name", ["id", "fc", "layer1"])
def test_a_module_name_means_all_under_it_and_no_lookalike(name):
    chosen = select(Lookalikes(), name)
    assert len(chosen) == 4
    assert all(one.startswith(name + ".") for one in chosen)


def test_no_pattern_is_everything_with_the_bare_parameters_at_the_root():
    model = vit_b_16(image_size=32, num_classes=2)
    assert select(model) == [name for name, _ in model.named_parameters()]
    assert {"class_token", "encoder.pos_embedding"} < set(select(model))
    assert select(model, "class_token") == ["class_token"]


def test_a_glob_is_compared_with_whole_names_and_case():
    model = resnet18(num_classes=2)
    chosen = select(model, "*.bn?.weight")
    assert len(chosen) == 16  # two in each of eight blocks; neither bn1.weight at the root nor downsample.1
    assert select(model, "bn?.weight") == ["bn1.weight"]
    with pytest.raises(ValueError, match=r"'\*\.BN\?\.weight' matches none"):
        select(model, "*.BN?.weight")


def test_modules_and_predicates_choose_and_patterns_add_up():
    model = resnet18(num_classes=2)
    assert select(model, model.fc) == ["fc.weight", "fc.bias"]
    assert select(model, lambda name, parameter: parameter.ndim == 4, "fc") == [
        name for name, p in model.named_parameters() if p.ndim == 4 or name.startswith("fc.")
    ]


def test_every_name_of_a_tied_parameter_is_returned_whichever_is_chosen():
    model = Tied()
    assert select(model, "out") == select(model, "embedding") == ["embedding.weight", "out.weight"]


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_prefixes_of_wrappers_may_be_left_out(wrap):
    model = wrap(resnet18(num_classes=2))
    assert [name.split(".", 1)[1] for name in select(model, "fc")] == ["fc.weight", "fc.bias"]
    freeze(model, "layer1", lambda name, parameter: name == "conv1.weight")
    inner = next(model.children()) if wrap is nn.DataParallel else model._orig_mod
    assert not inner.conv1.weight.requires_grad
    assert not inner.layer1[0].conv1.weight.requires_grad
    assert inner.layer2[0].conv1.weight.requires_grad


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (
            "layer11",
            "'layer11' matches none of the 25 parameters and no module; the nearest are .*'layer1'",
        ),
        ("fc.0.wieght", "the nearest is 'fc.0.weight'|the nearest are 'fc.0.weight'"),
        ("", "pattern '' matches none"),
        ("layer[12]", r"compared with whole parameter names: try 'layer\[12\]\.\*'"),
        (nn.Linear(2, 2), "not part of the model"),
        (lambda name, parameter: False, "true for none of the 25 parameters"),
    ],
)
def test_a_pattern_that_chooses_nothing_is_an_error_with_the_next_step(pattern, says):
    model = Lookalikes()
    for function in (select, freeze, unfreeze):
        with pytest.raises(ValueError, match=says):
            function(model, "fc", pattern)
    assert len(trainable(model)) == 25, "nothing is changed on bad input"


def test_a_module_without_parameters_and_a_list_are_errors():
    model = resnet18(num_classes=2)
    with pytest.raises(ValueError, match="ReLU has no parameters"):
        freeze(model, "relu")
    with pytest.raises(TypeError, match="one by one: freeze"):
        freeze(model, ["conv1", "bn1"])
    with pytest.raises(ValueError, match="not 'evla'"):
        freeze(model, batch_norm="evla")
    assert trainable(model) == [name for name, _ in model.named_parameters()]


def test_select_changes_nothing():
    model = resnet18(num_classes=2)
    model.bn1.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    select(model, "layer1", "*.weight", model.fc, lambda name, parameter: True)
    assert all(torch.equal(v, before[0][k]) for k, v in model.state_dict().items())
    assert torch.equal(before[1], torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert trainable(model) == [name for name, _ in model.named_parameters()]


# freezing


def test_freeze_clears_the_flag_and_the_gradient_of_what_is_chosen_only():
    model = Lookalikes()
    model(torch.randn(4, 2)).sum().backward()
    freeze(model, "layer1", "scale")
    frozen = {name for name in dict(model.named_parameters()) if name.startswith("layer1.") or name == "scale"}
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name not in frozen)
        assert (parameter.grad is None) == (name in frozen)


def test_unfreeze_undoes_freeze():
    model = resnet18(num_classes=2)
    model.layer2.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    keys = list(model.state_dict())
    freeze(model)
    assert not trainable(model)
    assert list(model.state_dict()) == keys
    unfreeze(model)
    assert trainable(model) == [name for name, _ in model.named_parameters()]
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert attributes == {name: set(vars(module)) for name, module in model.named_modules()}


def test_unfreeze_in_part_frees_only_the_norms_of_that_part():
    model = resnet18(num_classes=2)
    freeze(model)
    unfreeze(model, "layer4", "fc")
    model.train()
    norms = {n: m.training for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert {name for name, training in norms.items() if training} == {n for n in norms if "layer4" in n}


def test_whole_numbers_stay_without_gradient():
    model = nn.Linear(2, 2)
    model.steps = nn.Parameter(torch.zeros(1, dtype=torch.long), requires_grad=False)
    freeze(model)
    unfreeze(model)
    assert trainable(model) == ["weight", "bias"]


def test_freezing_after_training_clears_what_momentum_would_use():
    torch.manual_seed(0)
    model = Lookalikes()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)

    def step():
        optimizer.zero_grad(set_to_none=False)
        model(torch.randn(8, 2)).square().sum().backward()
        optimizer.step()

    step()
    before = model.layer1[0].weight.clone()
    freeze(model, "layer1")
    step()
    assert torch.equal(before, model.layer1[0].weight)


# the receipt


def test_the_receipt_counts_and_names_ties_norms_and_dropout():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 2))
    receipt = freeze(model)
    assert (receipt.trainable, receipt.total) == (0, 16)
    assert repr(receipt) == (
        "froze 6 parameters; 0 of 16 values are trainable\n"
        "batch norm statistics held, also through model.train(): 1 (1)\n"
        "dropout inside, still random in train mode: 1 (2)"
    )
    assert receipt._repr_html_() == repr(receipt).replace("\n", "<br>")
    assert freeze(model).norms == [], "it was held already"
    again = freeze(model, batch_norm="train")
    assert again.drifting == ["1"]
    assert "statistics still moving in train mode: 1 (1)" in repr(again)
    assert "free to move again" in repr((freeze(model), unfreeze(model))[1])
    assert receipt.to_dict()["random"] == ["2"]


def test_the_receipt_names_ties():
    receipt = freeze(Tied(), "out")
    assert receipt.ties == [["embedding.weight", "out.weight"]]
    assert repr(receipt) == (
        "froze 1 parameters; 0 of 15 values are trainable\n"
        "embedding.weight and out.weight are one tensor: they freeze and train together"
    )


def test_dropout_in_a_frozen_part_stays_random():
    model = nn.Sequential(nn.Linear(2, 64), nn.Dropout(0.5))
    freeze(model)
    x = torch.ones(1, 2)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
