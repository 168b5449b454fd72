"""The checks of the lesson on modes: more right and wrong answers than those that stand beside the exercises."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from ftlab.exercises import modes
from tests.answers import is_wrong, passes

# -- predict and choose ------------------------------------------------------------------------------


def test_a_prediction_may_be_handed_over_itself():
    passes(modes.repeatable, {"eval", "eval + inference_mode", "dropout in eval"})
    passes(modes.out_of_memory, ("no_grad", "no graph"))


@pytest.mark.parametrize("exercise", [modes.repeatable, modes.changed_by_looking])
def test_a_prediction_of_another_kind_or_with_unknown_names_is_told_so(exercise):
    is_wrong(exercise, "eval", "is of type `str`")
    is_wrong(exercise, {"evil"}, "`evil`: no such name is in the task")


def test_a_choice_that_is_none_of_those_given_is_told_so():
    is_wrong(modes.out_of_memory, ("inference_mode", "no graph"), "is not among the choices")
    is_wrong(modes.out_of_memory, ("no_grad", "because"), "is not among the choices")


# -- validate ----------------------------------------------------------------------------------------


def test_a_validation_of_a_copy_leaves_no_trace_either():
    def on_a_copy(model, batches):
        looked_at = copy.deepcopy(model).eval()
        with torch.inference_mode():
            right = torch.cat([looked_at(x).argmax(1) == y for x, y in batches])
        return right.float().mean().item()

    passes(modes.validate, on_a_copy)


def test_a_validation_by_mean_of_the_batches_is_right_where_they_are_equally_large():
    def by_batch(model, batches):
        flags = {module: module.training for module in model.modules()}
        try:
            with torch.no_grad():
                found = [(model.eval()(x).argmax(1) == y).float().mean() for x, y in batches]
        finally:
            for module, flag in flags.items():
                module.train(flag) if not list(module.children()) else setattr(module, "training", flag)
        return torch.stack(found).mean()

    passes(modes.validate, by_batch)


def test_a_validation_with_dropout_awake_is_wrong():
    @torch.no_grad()
    def norms_only(model, batches):
        flags = {module: module.training for module in model.modules()}
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        right = torch.cat([(model(x).argmax(1) == y).float() for x, y in batches * 20])
        for module, flag in flags.items():
            module.training = flag
        return right.mean()

    is_wrong(modes.validate, norms_only, "the accuracy is another one")


def test_a_validation_that_returns_nothing_is_told_so():
    is_wrong(modes.validate, lambda model, batches: None, "It gave back `None`")
    is_wrong(modes.validate, lambda model, batches: "0.5 of all", "The accuracy is one number")
    is_wrong(modes.validate, lambda model, batches: float("nan"), "another one than yours, nan")


# -- the loops ---------------------------------------------------------------------------------------


def test_a_loader_with_larger_last_batches_is_no_loader_of_that_size():
    def two_in_one(dataset, batch_size):
        if len(dataset) % batch_size != 1:
            return DataLoader(dataset, batch_size, shuffle=True)
        order = torch.randperm(len(dataset)).tolist()
        batches = [order[i : i + batch_size] for i in range(0, len(order) - 1, batch_size)]
        batches[-1].append(order[-1])
        return DataLoader(dataset, batch_sampler=batches)

    is_wrong(modes.make_loader, two_in_one, "one batch has")
    is_wrong(modes.make_loader, lambda dataset, batch_size: list(dataset), "You gave a `list`, no `DataLoader`")


def test_a_train_mode_that_is_called_twice_does_not_remember():
    def remembered(model, seen=[]):  # noqa: B006 - that is the mistake
        seen = seen or [
            m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and not m.weight.requires_grad
        ]
        if not hasattr(model, "held"):
            model.held = seen
        model.train()
        for module in model.held:
            module.eval()

    is_wrong(modes.train_mode, remembered, "After `layer4` was frozen")


# -- transfer ----------------------------------------------------------------------------------------


def test_features_in_double_or_for_one_batch_only_are_wrong():
    def first_only(backbone, batches):
        return modes.cache_features.function(backbone, batches[:1])

    is_wrong(modes.cache_features, first_only, "Not one tensor with a row per image")


def test_samples_by_the_functional_dropout_are_told_from_dropout_awake():
    def noise(model, images, samples):
        with torch.no_grad():
            scores = torch.stack([model(images) for _ in range(samples)])
        return (scores + torch.randn_like(scores)).softmax(2)

    is_wrong(modes.sample_predictions, noise, "still depends on the other images")


def test_statistics_by_hand_are_right_too():
    def cumulative(model, batches):
        kept = {module: module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
        for number, batch in enumerate(batches):
            for module in kept:
                module.momentum = 1 / (number + 1)
            with torch.no_grad():
                model.train()(batch)
        for module, momentum in kept.items():
            module.momentum = momentum
        model.eval()

    passes(modes.recalibrate, cumulative)


def test_statistics_of_the_images_alone_do_not_reach_the_layers_behind():
    def first_norm_only(model, batches):
        model.bn1.reset_running_stats()
        model.bn1.momentum = None
        with torch.no_grad():
            for batch in batches:
                model.bn1.train()
                model(batch)
        model.bn1.momentum = 0.1
        model.eval()

    is_wrong(modes.recalibrate, first_norm_only, "The stored mean of `layer1.0.bn1`")
