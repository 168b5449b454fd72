"""What is no model is refused by name, and what is wrapped around one is looked into or named."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models

from ftlab.given import inside, refuse_lazy
from ftlab.summary import summarize
from ftlab.surgery import Assembly, MultiHead, assemble, cut, cut_points, head_names, replace_head, stages

IMAGES = torch.zeros(2, 3, 32, 32)
CALLS = {
    "summarize": lambda model: summarize(model, IMAGES),
    "head_names": head_names,
    "head_names, example": lambda model: head_names(model, IMAGES),
    "replace_head": lambda model: replace_head(model, 4),
    "cut": lambda model: cut(model, "0"),
    "cut_points": lambda model: cut_points(model, IMAGES),
    "stages": lambda model: stages(model, IMAGES),
    "assemble": lambda model: assemble(model, IMAGES, Assembly("0")),
    "MultiHead": lambda model: MultiHead(model, [nn.Flatten()]),
}


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4 * 28 * 28, 5))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "nothing .None. was given"),
        ("resnet18", "the text 'resnet18' was given"),
        (models.resnet18, r"the function resnet18 was given: call it, resnet18\(...\)"),
        (nn.Linear, r"the class Linear was given: call it, Linear\(...\)"),
        (small().state_dict(), "a dictionary .OrderedDict. was given; a state_dict has no layers"),
        (torch.zeros(2), "an object of class Tensor was given"),
    ],
)
def test_what_is_no_model_is_named(call, given, message):
    with pytest.raises(TypeError, match=message):
        call(given)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("name", [name for name in CALLS if name != "MultiHead"])
def test_a_scripted_model_is_refused_in_plain_words(name):
    with pytest.raises(TypeError, match="scripted or traced model was given"):
        CALLS[name](torch.jit.trace(small(), IMAGES))


@pytest.mark.parametrize("name", CALLS)
def test_the_model_itself_is_taken(name):
    CALLS[name](small())


@pytest.mark.parametrize("name", ["cut", "cut_points", "stages", "assemble"])
@pytest.mark.parametrize(("wrap", "word"), [(nn.DataParallel, "module"), (torch.compile, "_orig_mod")])
def test_where_names_would_differ_a_wrapper_is_refused_with_the_way_in(name, wrap, word):
    with pytest.raises(ValueError, match=f"is a wrapper around a model; give what is inside, model.{word}"):
        CALLS[name](wrap(small()))


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_look_goes_through_wrappers(wrap):
    wrapped = wrap(small())
    (name,) = head_names(wrapped, IMAGES)
    assert wrapped.get_submodule(name) is inside(wrapped)[3]
    assert summarize(wrapped, IMAGES).total_params == sum(p.numel() for p in wrapped.parameters())
    assert type(inside(nn.DataParallel(wrapped))) is nn.Sequential


def test_a_model_that_is_no_wrapper_stays_what_it_is():
    model = small()
    model.module = nn.Linear(2, 2)  # the name alone makes no wrapper
    assert inside(model) is model


@pytest.mark.parametrize("name", ["summarize", "head_names, example", "replace_head", "cut_points", "stages"])
def test_a_lazy_model_is_told_the_next_step(name):
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.LazyLinear(5))
    with pytest.raises(ValueError, match="call the model once with real data"):
        CALLS[name](model)
    assert [type(layer) for layer in model] == [nn.LazyConv2d, nn.Conv2d, nn.Flatten, nn.LazyLinear]
    model(IMAGES)
    refuse_lazy(model, "go on")
    CALLS[name](copy.deepcopy(model))
