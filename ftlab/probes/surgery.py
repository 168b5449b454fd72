"""What lesson 03 says about changing a model."""

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models, ops
from torchvision.models.feature_extraction import create_feature_extractor

from ftlab.probes import probe


def _raises(kind: type[Exception], call: object, words: str = "") -> bool:
    try:
        call()
    except kind as error:
        return words in str(error)
    return False


@probe("Setting `fc.out_features` changes what a linear layer prints, not what it gives.")
def out_features_is_a_label() -> bool:
    layer = nn.Linear(3, 5)
    layer.out_features = 2
    return layer(torch.ones(1, 3)).shape == (1, 5) and "out_features=2" in repr(layer)


@probe("A new layer in a model in eval mode is in train mode, on the CPU and float32.")
def a_new_layer_is_new() -> bool:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).double().eval()
    model[1] = nn.Linear(2, 3)
    return model[1].training and model[1].weight.dtype == torch.float32 and model[0].weight.dtype == torch.float64


@probe("An optimizer that was built before a new head never moves it, and nothing is said.")
def optimizer_keeps_tensors() -> bool:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model[1] = nn.Linear(2, 3)
    before = model[1].weight.clone()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return torch.equal(before, model[1].weight) and model[1].weight.grad.any().item()


@probe("A python list of layers in a module is not registered: no parameters, no keys, no eval, no error.")
def list_is_invisible() -> bool:
    model = nn.Module()
    model.heads = [nn.Linear(2, 2)]
    model.eval()
    return not list(model.parameters()) and not model.state_dict() and model.heads[0].training


@probe("`nn.ModuleList([layer] * 3)` is one layer with three names.")
def repeated_layer_is_one() -> bool:
    layers = nn.ModuleList([nn.Linear(2, 2)] * 3)
    return len(list(layers.parameters())) == 2 and len(layers.state_dict()) == 6


@probe("A ModuleList cannot be called.")
def module_list_has_no_forward() -> bool:
    return _raises(NotImplementedError, lambda: nn.ModuleList([nn.Linear(1, 1)])(torch.ones(1)))


@probe("An Inception and a GoogLeNet return a named tuple in train mode, and scores in eval mode.")
def auxiliary_heads_make_tuples() -> bool:
    images = torch.empty(2, 3, 299, 299, device="meta")
    for build in (models.googlenet, models.inception_v3):
        with torch.device("meta"):
            model = build(init_weights=False, aux_logits=True)
        if not isinstance(model(images), tuple) or not isinstance(model.eval()(images), torch.Tensor):
            return False
    return True


@probe("`strict=False` forgives missing keys, and not another shape.")
def strict_false_and_shapes() -> bool:
    state = nn.Linear(2, 3).state_dict()
    return _raises(
        RuntimeError, lambda: nn.Linear(2, 5).load_state_dict(state, strict=False), "size mismatch"
    ) and bool(nn.Linear(2, 3).load_state_dict({}, strict=False).missing_keys)


@probe("Cross-entropy of log-softmax is cross-entropy of the logits.")
def log_softmax_twice() -> bool:
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    once, twice = F.cross_entropy(logits, target), F.cross_entropy(logits.log_softmax(1), target)
    return torch.allclose(once, twice)


@probe("Cross-entropy of softmax never falls below 0.3133 with 2 classes, and 5.9095 with 1000.")
def softmax_has_a_floor() -> bool:
    floors = [F.cross_entropy(F.one_hot(torch.tensor([0]), n).float(), torch.tensor([0])) for n in (2, 1000)]
    return [round(floor.item(), 4) for floor in floors] == [0.3133, 5.9095]


@probe("BatchNorm1d cannot train on a batch of one.")
def batch_of_one() -> bool:
    return _raises(ValueError, lambda: nn.BatchNorm1d(2)(torch.ones(1, 2)), "more than 1 value per channel")


@probe("A vision transformer insists on its image size; networks with an adaptive pool do not.")
def sizes() -> bool:
    images = torch.empty(2, 3, 160, 160, device="meta")
    with torch.device("meta"):
        resnet, vit = models.resnet18().eval(), models.vit_b_16().eval()
    return resnet(images).shape == (2, 1000) and _raises(
        AssertionError, lambda: vit(images), "Wrong image height"
    )


@probe("`FrozenBatchNorm2d` has no parameters and no counter, and loads the state_dict of a batch norm.")
def frozen_norm() -> bool:
    norm, frozen = nn.BatchNorm2d(3), ops.FrozenBatchNorm2d(3)
    loaded = frozen.load_state_dict(norm.state_dict())
    return not list(frozen.parameters()) and len(frozen.state_dict()) == 4 and not loaded.unexpected_keys


@probe("A feature extractor shares its parameters with the model, and a deepcopy of it is back in train mode.")
def extractor_shares() -> bool:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).eval()
    part = create_feature_extractor(model, ["0"])
    shared = next(part.parameters()) is model[0].weight
    return shared and not part.training and copy.deepcopy(part).training


@probe("`weights=` with another `num_classes` raises a ValueError: load first, replace the head afterwards.")
def weights_and_classes() -> bool:
    return _raises(ValueError, lambda: models.alexnet(weights="DEFAULT", num_classes=5), "num_classes")


@probe("`torch.stack` refuses images of two sizes: within a batch the size must be one.")
def one_size_within_a_batch() -> bool:
    images = [torch.ones(3, 8, 8), torch.ones(3, 9, 8)]
    return _raises(RuntimeError, lambda: torch.stack(images), "equal size")


@probe("`FrozenBatchNorm2d` and `BatchNorm2d` load each other's state_dict, though one has no counter.")
def norms_forgive_the_counter() -> bool:
    norm, frozen = nn.BatchNorm2d(3), ops.FrozenBatchNorm2d(3)
    both = [frozen.load_state_dict(norm.state_dict()), norm.load_state_dict(frozen.state_dict())]
    return not any(loaded.missing_keys or loaded.unexpected_keys for loaded in both)


@probe("A pool put in with the size that the map has already changes nothing, bit for bit.")
def pool_of_the_same_size() -> bool:
    maps = torch.randn(2, 3, 6, 6)
    return torch.equal(nn.AdaptiveAvgPool2d(6)(maps), maps)


@probe(
    "`children()[:-1]` of a ResNet does not flatten, and of a DenseNet gives negative values: its ReLU is lost."
)
def children_are_not_forward() -> bool:
    images = torch.randn(1, 3, 64, 64)
    resnet, densenet = (
        nn.Sequential(*list(m().eval().children())[:-1]) for m in (models.resnet18, models.densenet121)
    )
    return resnet(images).ndim == 4 and bool((densenet(images) < 0).any())
