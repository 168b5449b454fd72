"""What lesson 02 says about looking into a model."""

import torch
import torchinfo
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from ftlab.probes import probe


def _raises(call, *errors: type[Exception]) -> bool:
    try:
        call()
    except errors:
        return True
    return False


def _small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.decode = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
        self.decode.weight = self.embed.weight

    def forward(self, words):
        return self.decode(self.embed(words))


@probe("A module is no dictionary: `model[0]`, `model['fc']`, `len(model)` and `in` raise a TypeError.")
def a_module_is_no_dictionary() -> bool:
    model = nn.Linear(1, 1)
    calls = [lambda: model[0], lambda: model["weight"], lambda: len(model), lambda: "weight" in model]
    return all(_raises(call, TypeError) for call in calls)


@probe("`get_submodule` and `get_parameter` take the dotted name, and give the thing itself.")
def dotted_names() -> bool:
    model = nn.Sequential(nn.Sequential(nn.Linear(1, 1)))
    same = model.get_submodule("0.0") is model[0][0]
    return same and model.get_parameter("0.0.weight") is model[0][0].weight


@probe("`parameters()` gives a tied tensor once, and a `state_dict` has it under each of its names.")
def tied_once() -> bool:
    model = _Tied()
    return len(list(model.parameters())) == 1 and len(model.state_dict()) == 2


@probe("A forward pass in train mode changes the statistics of batch norm, also if only its shapes are wanted.")
def looking_teaches() -> bool:
    model = _small()
    with torch.no_grad():
        model(torch.rand(2, 3, 8, 8))
    return bool(model[1].num_batches_tracked == 1)


@probe("`torchinfo.summary` puts a batch norm back into train mode that was held in eval mode.")
def torchinfo_loses_modes() -> bool:
    model = _small()
    model[1].eval()
    torchinfo.summary(model, input_size=(2, 3, 8, 8), verbose=0)
    return model[1].training


@probe("`torchinfo.summary` of a size draws random numbers from the global generator.")
def torchinfo_draws() -> bool:
    before = torch.get_rng_state()
    torchinfo.summary(_small(), input_size=(2, 3, 8, 8), verbose=0)
    return not torch.equal(before, torch.get_rng_state())


@probe("`torchinfo.summary` runs in eval mode: batch norm statistics stay, unless `mode='train'` is asked for.")
def torchinfo_keeps_statistics() -> bool:
    one, other = _small(), _small()
    torchinfo.summary(one, input_size=(2, 3, 8, 8), verbose=0)
    torchinfo.summary(other, input_size=(2, 3, 8, 8), verbose=0, mode="train")
    return bool(one[1].num_batches_tracked == 0 and other[1].num_batches_tracked == 1)


@probe("`torchinfo.summary` counts a tied parameter twice.")
def torchinfo_counts_ties_twice() -> bool:
    words = torch.zeros(1, 3, dtype=torch.long)
    return torchinfo.summary(_Tied(), input_data=words, verbose=0).total_params == 80


@probe("`torchinfo.summary` takes a size with the batch in front; without it most image networks raise.")
def torchinfo_wants_the_batch() -> bool:
    return _raises(lambda: torchinfo.summary(_small(), input_size=(3, 8, 8), verbose=0), RuntimeError)


@probe("A tensor on the meta device has a shape and no memory, and a forward pass on it gives shapes.")
def meta_has_no_memory() -> bool:
    layer = nn.Linear(10**6, 10**6, device="meta")  # 4 TB
    return layer(torch.empty(2, 10**6, device="meta")).shape == (2, 10**6) and layer.weight.is_meta


@probe("PyTorch's counter takes two operations for a multiply-add, and none for the bias.")
def two_operations() -> bool:
    layer = nn.Conv2d(3, 4, 3, padding=1, device="meta")
    with FlopCounterMode(display=False) as counter:
        layer(torch.empty(1, 3, 8, 8, device="meta"))
    return counter.get_total_flops() == 2 * layer.weight.numel() * 64


@probe("AlexNet, VGG and ResNet take images of 64 pixels; a vision transformer for 224 takes no other.")
def sizes() -> bool:
    with torch.device("meta"):
        image = torch.empty(2, 3, 64, 64)
        shapes = [build().eval()(image).shape for build in (models.alexnet, models.vgg11, models.resnet18)]
        return shapes == [(2, 1000)] * 3 and _raises(lambda: models.vit_b_32()(image), AssertionError)


@probe("Images of different sizes cannot be stacked to a batch.")
def one_size_in_a_batch() -> bool:
    return _raises(lambda: torch.stack([torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)]), RuntimeError)
