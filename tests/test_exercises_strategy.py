"""The checks of the lesson on strategy: more answers, right and wrong, than stand beside the exercises."""

import math
import random

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from ftlab.exercises import strategy
from ftlab.exercises.core import Outcome
from tests.answers import is_wrong, passes


def judged(exercise, answer):
    return exercise.judge(answer, seed=5)


# -- predict and choose ------------------------------------------------------------------------------


def test_a_prediction_may_be_handed_over_itself():
    passes(strategy.body_passes, (2000, 100, 300))
    passes(strategy.gap_by_mode, ("stored statistics", "hold the norms"))
    passes(
        strategy.may_be_stored,
        {"resize and normalise", "batch norm in the frozen part, eval mode", "the last block learns"},
    )


def test_a_prediction_of_another_kind_is_told_so():
    is_wrong(strategy.body_passes, 2000, "Three numbers were asked for")
    is_wrong(strategy.gap_by_mode, "stored statistics", "Not a pair")
    is_wrong(strategy.gap_by_mode, ("statistics", "hold"), "`statistics` is not among the causes")
    is_wrong(strategy.gap_by_mode, ("stored statistics", "hold"), "`hold` is not among the repairs")
    is_wrong(strategy.may_be_stored, "random crop", "is of type `str`")
    is_wrong(strategy.may_be_stored, {"rnadom crop"}, "`rnadom crop`: no such name is in the task")


# -- images ------------------------------------------------------------------------------------------


def test_a_draw_in_any_order_and_of_any_sequence_is_right():
    def from_the_back(targets, each, seed):
        generator = random.Random(seed)
        found = []
        for target in {0, 1, 2}:
            own = [place for place, one in enumerate(targets) if one == target]
            generator.shuffle(own)
            found = own[:each] + found
        return tuple(found)

    passes(strategy.draw_few, from_the_back)


def test_a_draw_of_the_targets_instead_of_positions_is_wrong():
    def classes(targets, each, seed):
        return [target for target in set(targets) for _ in range(each)]

    is_wrong(strategy.draw_few, classes, "0 of class 1")
    is_wrong(strategy.draw_few, lambda targets, each, seed: ["0", "1", "2"], "Not a list of positions")


def test_a_draw_that_seeds_the_world_is_still_a_draw():
    def world(targets, each, seed):
        random.seed(seed)
        found = []
        for target in sorted(set(targets)):
            found += random.sample([place for place, one in enumerate(targets) if one == target], each)
        return found

    passes(strategy.draw_few, world)


def test_seen_images_may_come_as_a_tensor_or_a_set():
    def with_a_matrix(train, test):
        both = torch.cat([train, train.flip(3)])
        same = (test[:, None] == both[None]).flatten(2).all(2).any(1)
        return same.nonzero().flatten()

    passes(strategy.seen_before, with_a_matrix)
    passes(strategy.seen_before, lambda train, test: set(with_a_matrix(train, test).tolist()))


def test_the_wrong_side_is_told_so():
    def positions_in_train(train, test):
        return [i for i, one in enumerate(train) if any(torch.equal(one, other) for other in test)]

    is_wrong(strategy.seen_before, positions_in_train, "is not among the training images")


# -- believing ---------------------------------------------------------------------------------------


def test_a_t_test_by_the_book_is_right():
    def book(a, b):
        from scipy.stats import ttest_rel

        return len(a) > 1 and ttest_rel(a, b, alternative="greater").pvalue < 0.025

    passes(strategy.is_better, book)


def test_variance_for_deviation_and_the_wrong_sign_are_wrong():
    def variance(a, b):
        each = [one - other for one, other in zip(a, b, strict=True)]
        mean = sum(each) / len(each)
        return len(a) > 1 and mean > sum((one - mean) ** 2 for one in each) / len(each)

    def other_way(a, b):
        return strategy.is_better.function(b, a)

    is_wrong(strategy.is_better, variance, "only because of one seed")
    is_wrong(strategy.is_better, other_way, "You call it not clear")


def test_a_report_of_another_kind_is_told_so():
    is_wrong(strategy.pick_and_report, lambda val, test: max(val, key=val.get), "Not a pair")
    is_wrong(strategy.pick_and_report, lambda val, test: ("b", 0.5), "another one")


def test_a_curve_may_be_continued_with_any_logarithm():
    def ten(images, errors, count):
        slope = math.log10(errors[1] / errors[0]) / math.log10(images[1] / images[0])
        return errors[0] * 10 ** (slope * math.log10(count / images[0]))

    passes(strategy.error_at, ten)
    passes(strategy.error_at, lambda images, errors, count: torch.tensor(ten(images, errors, count)))


def test_accuracy_for_error_is_wrong():
    is_wrong(
        strategy.error_at,
        lambda images, errors, count: 1 - strategy.error_at.function(images, errors, count),
        "you expect",
    )


# -- once, and two phases ----------------------------------------------------------------------------


def test_a_head_on_features_that_were_made_with_a_graph_is_right_too():
    def whole_at_once(model, dataset, epochs):
        head, model.fc = model.fc, nn.Identity()
        model.eval()
        images, targets = next(iter(DataLoader(dataset, batch_size=len(dataset))))
        features = model(images).detach()
        model.fc = head
        optimizer = torch.optim.AdamW(head.parameters(), lr=0.03)
        for _ in range(10 * epochs):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(features), targets).backward()
            optimizer.step()

    passes(strategy.fit_head, whole_at_once)


def test_a_body_that_is_not_put_back_is_noticed():
    def forgets(model, dataset, epochs):
        model.fc = nn.Identity()
        with torch.no_grad():
            [model.eval()(images) for images, _ in DataLoader(dataset, batch_size=8)]

    feedback = judged(strategy.fit_head, forgets)
    assert feedback.outcome is Outcome.WRONG


def test_a_second_phase_with_frozen_norms_or_by_pattern_is_right():
    def by_name(model, optimizer):
        chosen = [p for name, p in model.named_parameters() if name.startswith("layer4.")]
        for parameter in chosen:
            parameter.requires_grad_()
        optimizer.add_param_group(
            dict(optimizer.defaults, params=chosen, lr=optimizer.param_groups[0]["lr"] / 10)
        )

    passes(strategy.second_phase, by_name)


def test_a_second_phase_at_a_rate_by_heart_is_wrong():
    def by_heart(model, optimizer):
        model.layer4.requires_grad_(True)
        optimizer.add_param_group({"params": model.layer4.parameters(), "lr": 0.01})

    is_wrong(strategy.second_phase, by_heart, "has the rate 0.01, with 0.02 for the head")


def test_what_is_no_number_is_no_error():
    is_wrong(strategy.error_at, lambda images, errors, count: float("nan"), "you expect nan")


def test_a_rate_that_is_no_number_is_wrong():
    def not_a_number(model, optimizer):
        model.layer4.requires_grad_(True)
        optimizer.add_param_group({"params": model.layer4.parameters(), "lr": float("nan")})

    is_wrong(strategy.second_phase, not_a_number, "has the rate nan")


@pytest.mark.parametrize("exercise", [strategy.fit_head, strategy.second_phase])
def test_an_answer_that_raises_is_told_where(exercise):
    def raises(*arguments):
        return arguments[0].no_such_attribute

    is_wrong(exercise, raises, "It raised `AttributeError")
