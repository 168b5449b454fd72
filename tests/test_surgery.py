"""Heads, cuts and parts: on every classification model of torchvision, and on models of one's own."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.func import functional_call
from torchvision import models
from torchvision.models import regnet

from ftlab import pretrained
from ftlab.freezing import freeze
from ftlab.freezing.norms import is_held
from ftlab.surgery import (
    AdaptiveConcatPool2d,
    Assembly,
    MultiHead,
    assemble,
    cut,
    cut_points,
    head_names,
    replace_head,
    stages,
)
from ftlab.surgery.dry import dry_run
from ftlab.surgery.dry import on_meta as on_the_meta_device
from tests.test_widgets_freezing import assert_same, state

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
# One of each family that builds its head in its own way.
FAMILIES = ["alexnet", "squeezenet1_1", "vit_b_32", "swin_t", "maxvit_t", "convnext_tiny", "densenet121"]
FAMILIES += ["googlenet", "inception_v3", "regnet_y_400mf", "mobilenet_v3_small", "shufflenet_v2_x0_5"]


@pytest.fixture
def on_meta(monkeypatch):
    """A function that builds a model without numbers: in a moment, whatever its size."""
    original = regnet.BlockParams.from_init_params.__func__

    def with_numbers(cls, *args, **kwargs):  # RegNet computes its widths with tensors
        with torch.device("cpu"):
            return original(cls, *args, **kwargs)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", classmethod(with_numbers))

    def build(name, **config):
        if name in ("googlenet", "inception_v3"):
            config["init_weights"] = False
        with torch.device("meta"):
            return models.get_model(name, **config)

    return build


def images_for(name):
    size = 299 if name == "inception_v3" else 224
    return torch.empty(2, 3, size, size, device="meta")


def well_used():
    """A model with gradients, a frozen part, a held norm and a norm in eval mode."""
    torch.manual_seed(0)
    model = models.resnet18()
    model(IMAGES).sum().backward()
    freeze(model, "layer1")
    model.layer2[0].bn1.eval()
    return model


# -- heads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.list_models(module=torchvision.models))
def test_every_model_gets_a_new_head(name, on_meta):
    model = on_meta(name)
    names = replace_head(model, 7)
    assert names == head_names(model)
    assert model.eval()(images_for(name)).shape == (2, 7)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_heads_are_the_layers_that_depend_on_the_classes_and_those_that_make_the_output(name, on_meta):
    model = on_meta(name)
    tensors, others = model.state_dict(), on_meta(name, num_classes=10).state_dict()
    depending = {key.rpartition(".")[0] for key in tensors if tensors[key].shape != others[key].shape}
    assert set(head_names(model)) == depending
    assert head_names(model, images_for(name)) == head_names(model)


def test_squeeze_excite_layers_with_as_many_outputs_and_a_name_like_a_head_are_left_alone():
    model = models.mobilenet_v3_small()
    outputs = model.features[1].block[1].fc1.out_channels
    replace_head(model, outputs)
    assert replace_head(model, 5) == ["classifier.3"]
    assert model.features[1].block[1].fc1.out_channels == outputs


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11", "densenet121", "vit_b_32", "squeezenet1_1"])
def test_a_head_that_was_taken_away_is_not_made_up(name, on_meta):
    model = on_meta(name)
    first = head_names(model)[0].split(".")[0]
    model.set_submodule(first, nn.Identity())
    with pytest.raises(ValueError, match="has it been taken away"):
        head_names(model)


def test_an_own_model_whose_head_is_made_first_needs_an_example():
    class HeadFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(4, 2), nn.Linear(3, 4)

        def forward(self, x):
            return {"scores": self.head(self.body(x).relu()), "nothing": None}

    assert head_names(HeadFirst()) == ["body"]
    assert head_names(HeadFirst(), torch.ones(2, 3)) == ["head"]


def test_finding_a_head_changes_nothing():
    model = well_used()
    before = state(model)
    head_names(model)
    head_names(model, IMAGES)
    assert_same(state(model), before)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_head_is_found_and_replaced_inside_wrappers():
    model = nn.DataParallel(models.googlenet(init_weights=False))
    assert replace_head(model, 3) == ["module.aux1.fc2", "module.aux2.fc2", "module.fc"]
    assert model.module.fc.out_features == 3
    compiled = torch.compile(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))
    assert replace_head(compiled, 5) == ["_orig_mod.2"]


def test_a_dry_run_computes_nothing_and_changes_nothing():
    model = well_used()
    before = state(model)
    assert dry_run(model, IMAGES, training=True).device.type == "meta"
    assert all(p.device.type == "meta" for p in on_the_meta_device(model).parameters())
    assert_same(state(model), before)


class Tied(nn.Module):
    """One layer under two names, and one tensor in two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.again, self.out.weight = self.first, self.first.weight

    def forward(self, images):
        return self.out(self.again(self.first(images)))


@pytest.mark.parametrize(
    "look",
    [
        dry_run,
        lambda *given: head_names(*given),
        lambda *given: cut_points(*given),
        lambda *given: stages(*given),
    ],
)
def test_a_look_at_a_layer_with_two_names_changes_nothing(look):
    model = Tied()
    before = state(model)
    look(model, IMAGES)
    assert_same(state(model), before)
    assert model.out.weight is model.again.weight is model.first.weight
    assert model(IMAGES).device.type == "cpu"


def test_the_functional_call_of_pytorch_alone_would_change_such_a_model():
    model = Tied()
    tensors = {name: parameter.detach().to("meta") for name, parameter in model.named_parameters()}
    functional_call(model, tensors, (IMAGES.to("meta"),))
    assert model.first.weight.is_meta  # if this fails PyTorch has mended it, and the snapshot in dry_run may go


def test_a_model_without_layers_has_no_head():
    for model in (nn.Sequential(nn.ReLU()), nn.Sequential()):
        with pytest.raises(ValueError, match="no layer with parameters"):
            head_names(model)
        with pytest.raises(ValueError, match="no layer with parameters"):
            head_names(model, IMAGES)
    with pytest.raises(ValueError, match="this Linear is one layer and has none inside"):
        replace_head(nn.Linear(2, 2), 3)


SEGMENTATION = {
    "deeplabv3_mobilenet_v3_large": ["aux_classifier.4", "classifier.4"],
    "fcn_resnet50": ["aux_classifier.4", "classifier.4"],
    "lraspp_mobilenet_v3_large": ["classifier.low_classifier", "classifier.high_classifier"],
}


@pytest.mark.parametrize(("name", "heads"), SEGMENTATION.items())
def test_a_segmentation_model_gets_new_heads(name, heads, on_meta):
    aux = {"aux_loss": True} if heads[0].startswith("aux") else {}
    model = on_meta(name, weights_backbone=None, **aux)
    images = torch.empty(2, 3, 64, 64, device="meta")
    assert head_names(model) == head_names(model, images) == heads
    assert replace_head(model, 4) == heads
    assert {tuple(maps.shape) for maps in model(images).values()} == {(2, 4, 64, 64)}
    with pytest.raises(ValueError, match="is no row of stages"):
        stages(model, images)


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"])
def test_a_detector_keeps_the_layer_that_gives_boxes(name, on_meta):
    model = on_meta(name, weights_backbone=None)
    before = {key: tensor.shape for key, tensor in model.state_dict().items()}
    for change in (replace_head, lambda model, classes: replace_head(nn.DataParallel(model), classes)):
        with pytest.raises(ValueError, match="is a detector"):
            change(model, 4)
    assert {key: tensor.shape for key, tensor in model.state_dict().items()} == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_new_head_is_there_too_and_a_hidden_layer_is_not():
    model = models.resnet18().cuda()
    replace_head(model, 3)
    assert model(IMAGES.cuda()).shape == (2, 3)
    assert torch.equal(cut(model, "layer1")(IMAGES.cuda()), cut(model, "layer1")(IMAGES.cuda()))
    model.hidden = [nn.Conv2d(3, 3, 1)]
    with pytest.raises(RuntimeError, match="should be the same"):
        model.cuda().hidden[0](IMAGES.cuda())


@pytest.mark.parametrize("build", [models.resnet18, models.squeezenet1_1])
def test_a_new_head_is_where_the_old_one_was(build):
    model = build().double().eval().requires_grad_(False)
    (name,) = replace_head(model, 3)
    head = model.get_submodule(name)
    assert head.weight.dtype == torch.float64
    assert not head.training
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [f"{name}.weight", f"{name}.bias"]
    assert model(IMAGES.double()).shape == (2, 3)


def test_a_head_without_a_bias_stays_one():
    model = nn.Sequential(nn.Linear(2, 3, bias=False))
    replace_head(model, 5)
    assert model[0].bias is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "at least 1, not 0"),
        ({"num_classes": 2, "names": "fcc"}, "no layer 'fcc'; the nearest is 'fc'"),
        ({"num_classes": 2, "names": ["fcc"]}, "no layer 'fcc'; the nearest is 'fc'"),
        ({"num_classes": 2, "names": ["fc", "conv1"]}, "'conv1' is a Conv2d of 7 x 7"),
        ({"num_classes": 2, "names": ["layer1"]}, "'layer1' is a Sequential; only nn.Linear"),
    ],
)
def test_a_wrong_request_is_answered_and_nothing_is_lost(arguments, message):
    model = models.resnet18()
    before = state(model)
    with pytest.raises(ValueError, match=message):
        replace_head(model, **arguments)
    assert_same(state(model), before)


@pytest.mark.parametrize("given", ["4", 4.0, True, None, [4]])
def test_a_number_of_classes_is_a_whole_number(given):
    model = models.resnet18()
    with pytest.raises(TypeError, match="must be a whole number, not"):
        replace_head(model, given)
    assert model.fc.out_features == 1000
    assert replace_head(model, np.int64(4), "fc") == ["fc"]
    assert model.fc.out_features == 4


# -- cutting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "after"), [(models.resnet18, "layer3"), (models.mobilenet_v3_small, "features.4")]
)
def test_a_cut_gives_what_the_model_has_there(build, after):
    model, seen = build().eval(), []
    model.get_submodule(after).register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(IMAGES)
    part = cut(model, after)
    assert torch.equal(part(IMAGES), seen[0])
    assert {key: tensor.shape for key, tensor in part.state_dict().items()}.items() <= {
        key: tensor.shape for key, tensor in model.state_dict().items()
    }.items()


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vit_b_32", "swin_t", "regnet_y_400mf"])
def test_every_place_that_is_shown_can_be_cut(name, on_meta):
    model, images = on_meta(name).eval(), images_for(name)
    for row in cut_points(model, images).to_dict():
        part = cut(model, row["cut after"]).eval()
        assert " × ".join(map(str, part(images).shape)) == row["gives"]
        assert sum(p.numel() for p in part.parameters()) == row["parameters"]


def test_the_network_that_is_always_here_can_be_cut_everywhere():
    model = pretrained.load().eval()
    features = cut(model, "flatten")(IMAGES)
    torch.testing.assert_close(model.classifier(features), model(IMAGES))
    assert torch.equal(cut(model, "features.4")(IMAGES), model.features[:5](IMAGES))


def test_cutting_changes_nothing():
    model = well_used()
    before = state(model)
    cut(model, "layer3")
    cut_points(model, IMAGES)
    assert_same(state(model), before)
    assert sum(map(is_held, model.modules())) > 0


def test_the_part_shares_its_parameters_and_follows_train_and_eval():
    model = models.resnet18().eval()
    part = cut(model, "layer1")
    assert part.conv1.weight is model.conv1.weight
    assert not part.training
    assert part.train().training
    part(IMAGES)
    assert model.bn1.num_batches_tracked == 1  # in train mode the statistics move, those of the model


def test_the_part_can_be_copied_and_its_numbers_come_along():
    part = cut(models.resnet18(), "layer1")
    other = copy.deepcopy(part)
    assert torch.equal(part.conv1.weight, other.conv1.weight)
    assert other.conv1.weight is not part.conv1.weight
    assert pickle.loads(pickle.dumps(part.state_dict())).keys() == part.state_dict().keys()


def test_an_example_is_a_batch_and_a_depth_at_least_one():
    with pytest.raises(TypeError, match=r"must be a batch, a tensor .N, C, H, W., not a tuple"):
        cut_points(models.resnet18(), (1, 3, 64, 64))
    with pytest.raises(ValueError, match="depth must be at least 1, not 0"):
        cut_points(models.resnet18(), IMAGES, depth=0)


def test_a_place_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="cannot be cut after 'layer9'; the nearest are 'layer4'"):
        cut(models.resnet18(), "layer9")


def test_a_model_that_cannot_be_traced_is_told_another_way():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match=r"cannot trace the forward of this Branching.*forward hook"):
        cut(Branching(), "relu")


# -- parts -----------------------------------------------------------------------------------------


def test_the_pool_gives_averages_and_then_maxima():
    maps = torch.randn(4, 3, 5, 7)
    pooled = AdaptiveConcatPool2d()(maps)
    torch.testing.assert_close(pooled[:, :3, 0, 0], maps.mean((2, 3)))
    assert torch.equal(pooled[:, 3:, 0, 0], maps.amax((2, 3)))
    assert AdaptiveConcatPool2d(2)(maps).shape == (4, 6, 2, 2)


def test_the_backbone_is_run_once_for_all_heads():
    runs = []
    backbone = nn.Flatten()
    backbone.register_forward_hook(lambda *_: runs.append(1))
    model = MultiHead(backbone, [nn.Linear(12, 2), nn.Linear(12, 3)])
    assert [scores.shape[1] for scores in model(torch.zeros(5, 3, 2, 2))] == [2, 3]
    assert len(runs) == 1
    assert len(list(model.parameters())) == 4


def test_heads_that_share_parameters_are_refused_unless_it_is_said():
    layer = nn.Linear(2, 2)
    heads = {"one": nn.Sequential(layer), "two": nn.Sequential(layer, nn.ReLU())}
    with pytest.raises(ValueError, match=r"head 'one' and head 'two' share 2 parameters.*deepcopy"):
        MultiHead(nn.Identity(), heads)
    with pytest.raises(ValueError, match="the backbone and head 0 share"):
        MultiHead(layer, [layer])
    assert len(list(MultiHead(nn.Identity(), heads, shared=True).parameters())) == 2
    with pytest.raises(ValueError, match="no head"):
        MultiHead(nn.Identity(), [])


# -- assembling ------------------------------------------------------------------------------------


def test_ten_heads_of_a_resnet50_as_the_recipe_has_it(on_meta):
    model, images = on_meta("resnet50"), torch.empty(1, 3, 64, 64)
    sizes = {}
    for rest in ("own", "shared"):
        with torch.device("meta"):
            network = assemble(model, images, Assembly("layer3", rest=rest, heads=10, num_classes=5))
        sizes[rest] = round(sum(p.numel() for p in network.parameters()) / 1e6, 1)
        assert len(network.state_dict()) == 878
    assert sizes == {"own": 158.3, "shared": 23.6}


@pytest.mark.parametrize("pool", ["average", "maximum", "both"])
@pytest.mark.parametrize("rest", ["none", "own", "shared"])
def test_every_plan_gives_a_network_that_learns(rest, pool):
    torch.manual_seed(0)
    model = models.resnet18()
    before = state(model)
    network = assemble(model, IMAGES, Assembly("layer2", rest, pool, heads=2, num_classes=3))
    now = state(model)
    assert_same({**now, "random": before["random"]}, before)  # new layers draw random numbers
    scores = network(IMAGES)
    assert [s.shape for s in scores] == [(2, 3), (2, 3)]
    sum(s.sum() for s in scores).backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t", "maxvit_t"])
def test_a_network_that_is_no_row_of_maps_is_told_apart(name, on_meta):
    with pytest.raises(ValueError, match="no row of stages"):
        stages(on_meta(name), images_for(name))


def test_stages_of_a_network_for_one_image_size_are_found_too():
    body = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3)]
    model = nn.Sequential(*body, nn.Flatten(), nn.Linear(6 * 28 * 28, 5))
    images = torch.zeros(2, 3, 32, 32)
    assert [stage.name for stage in stages(model, images)] == ["0", "1", "2", "3"]
    (scores,) = assemble(model, images, Assembly("1", rest="own", num_classes=4))(images)
    assert scores.shape == (2, 4)
    with pytest.raises(RuntimeError):  # what does not fit at the size that was given is still said
        stages(model, torch.zeros(2, 3, 64, 64))


def test_wrong_plans_are_answered():
    model = models.resnet18()
    with pytest.raises(ValueError, match="no stage 'layer5'; the nearest are 'layer4'"):
        assemble(model, IMAGES, Assembly("layer5"))
    with pytest.raises(ValueError, match="the last stage, there is no rest"):
        assemble(model, IMAGES, Assembly("layer4", rest="own"))


def test_looking_for_stages_changes_nothing():
    model = well_used()
    before = state(model)
    stages(model, IMAGES)
    assert_same(state(model), before)
