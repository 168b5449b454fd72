"""More answers to the exercises of summary: wrong ones that beginners give, and right ones of other styles."""

import copy
import operator

import pytest
import torch

import ftlab.summary
from ftlab.exercises import summary
from tests.answers import Answers, is_wrong, passes

answers = Answers()
right, wrong = answers.right, answers.wrong

# --- layer_at


@right(summary.layer_at)
def with_attrgetter(model, path):
    return operator.attrgetter(path)(model)


@right(summary.layer_at)
def by_a_search(model, path):
    for name, module in model.named_modules():
        if name == path:
            return module
    return None


@right(summary.layer_at)
def by_dictionaries(model, path):
    for name in path.split("."):
        model = model._modules[name]
    return model


@wrong(summary.layer_at, "It raised `AttributeError")
def a_parameter(model, path):
    return model.get_parameter(path)


@wrong(summary.layer_at, "something of type `BatchNorm2d`")
def the_last_of_its_block(model, path):
    return [module for name, module in model.named_modules() if name.startswith(path.split(".")[0])][-1]


@wrong(summary.layer_at, "It gave back `None`")
def printed(model, path):
    print(model.get_submodule(path))


@wrong(summary.layer_at, "something of type `str`")
def its_name(model, path):
    return next(name for name, _ in model.named_modules() if name == path)


# --- count_parameters


@right(summary.count_parameters)
def by_a_set(model):
    unique = set(model.parameters())
    return [sum(p.numel() for p in unique), sum(p.numel() for p in unique if p.requires_grad)]


@right(summary.count_parameters)
def by_ftlab(model):
    return sum(p.numel() for p in model.parameters()), sum(
        p.numel() * p.requires_grad for p in model.parameters()
    )


@wrong(summary.count_parameters, "Two numbers were asked for, you gave `[Param")
def the_parameters_themselves(model):
    return list(model.parameters())


@wrong(summary.count_parameters, "in the other order")
def exchanged(model):
    total, trainable = by_a_set(model)
    return trainable, total


@wrong(summary.count_parameters, "you counted 0.0")
def in_millions(model):
    total, trainable = by_a_set(model)
    return round(total / 1e9, 1), round(trainable / 1e9, 1)


@wrong(summary.count_parameters, "Of it you call 0 trainable")
def by_gradients(model):
    return by_a_set(model)[0], sum(p.numel() for p in model.parameters() if p.grad is not None)


@wrong(summary.count_parameters, "Two numbers were asked for")
def as_a_dictionary(model):
    total, trainable = by_a_set(model)
    return {"total": total, "trainable": trainable}


@wrong(summary.count_parameters, "A ResNet: you counted")
def weights_only(model):
    sizes = [(p.numel(), p.requires_grad) for name, p in model.named_parameters() if "weight" in name]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


# --- multiply_adds


@right(summary.multiply_adds)
def by_ftlab_on_meta(layer, height, width):
    found = ftlab.summary.summarize(layer, (1, layer.in_channels, height, width))
    return found.multiply_adds


@right(summary.multiply_adds)
def per_output_value(layer, height, width):
    out = layer(torch.rand(1, layer.in_channels, height, width))
    return out.numel() * layer.weight[0].numel()


@wrong(summary.multiply_adds, "something of type `Tensor`")
def as_a_tensor(layer, height, width):
    return torch.tensor(layer.weight.numel() * height * width)


@wrong(summary.multiply_adds, "you counted")
def of_the_output_alone(layer, height, width):
    return layer(torch.rand(1, layer.in_channels, height, width)).numel()


# --- output_shapes


@right(summary.output_shapes)
def one_child_after_the_other_but_for_the_flatten(model, images):
    shapes, modes = {}, [(module, module.training) for module in model.modules()]
    model.eval()
    with torch.no_grad():
        for name, child in model.named_children():
            images = child(images.flatten(1) if name == "fc" else images)
            shapes[name] = images.shape
    for module, mode in modes:
        module.training = mode
    return shapes


@wrong(summary.output_shapes, "something of type `Tensor`, not a shape")
def the_outputs_themselves(model, images):
    outputs, shadow = {}, copy.deepcopy(model).eval()
    for name, child in shadow.named_children():
        child.register_forward_hook(lambda module, args, out, name=name: outputs.update({name: out}))
    shadow(images)
    return outputs


@wrong(summary.output_shapes, "For `conv1` you gave (64, 16, 16)")
def without_the_batch(model, images):
    shapes, shadow = {}, copy.deepcopy(model).eval()
    for name, child in shadow.named_children():
        child.register_forward_hook(lambda module, args, out, name=name: shapes.update({name: out.shape[1:]}))
    shadow(images)
    return shapes


@wrong(summary.output_shapes, "There is no word on")
def the_name_of_the_last(model, images):
    shapes, shadow = {}, copy.deepcopy(model).eval()
    for name, child in shadow.named_children():
        child.register_forward_hook(lambda module, args, out: shapes.update({name: tuple(out.shape)}))  # noqa: B023
    shadow(images)
    return shapes


@wrong(summary.output_shapes, "something of type `list`")
def a_list(model, images):
    return [tuple(images.shape)]


# --- block_states


@right(summary.block_states)
def by_sets(model):
    words = {frozenset(): "nothing", frozenset([True]): "trains", frozenset([False]): "frozen"}
    return {
        name: words.get(frozenset(p.requires_grad for p in child.parameters()), "partly")
        for name, child in model.named_children()
    }


@wrong(summary.block_states, "'Trains', which is none of the four words")
def with_capitals(model):
    return {name: word.capitalize() for name, word in by_sets(model).items()}


@wrong(summary.block_states, "True, which is none of the four words")
def flags(model):
    return {name: all(p.requires_grad for p in child.parameters()) for name, child in model.named_children()}


@wrong(summary.block_states, "something of type `list`")
def pairs(model):
    return list(by_sets(model).items())


@wrong(summary.block_states, "There is no word on")
def of_every_parameter(model):
    return {name: "trains" if p.requires_grad else "frozen" for name, p in model.named_parameters()}


# --- predictions


@wrong(summary.where_is_what, "AlexNet has no part `'Classifier'`")
def capital():
    return "Classifier", "features", "features"


@wrong(summary.where_is_what, "Three answers were asked for")
def a_dictionary():
    return {"parameters": "classifier", "multiply-adds": "features", "memory": "features"}


@wrong(summary.which_sizes, "`resnet`")
def an_unknown_network():
    return {"resnet", "vgg11", "alexnet"}


@wrong(summary.save_memory, "smaller batches")
def misspelt():
    return "smaller batches", "activations"


@pytest.mark.parametrize(("exercise", "answer"), answers.rights)
def test_right_in_another_style(exercise, answer):
    passes(exercise, answer)


@pytest.mark.parametrize(("exercise", "answer", "says"), answers.wrongs)
def test_wrong_and_told_why(exercise, answer, says):
    is_wrong(exercise, answer, says)
