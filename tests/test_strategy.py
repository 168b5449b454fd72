"""Strategies: what they train, that nothing handed over is changed, and what a comparison says of its runs."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from ftlab.exercises.behaviour import same_model
from ftlab.exercises.models import SmallResNet, small_mobilenet, small_vit
from ftlab.strategy import Case, Comparison, DepthTrials, Run, Strategy, compare, draw, hold_out, measured, usual
from ftlab.strategy.drawing import shares, targets_of


class Colours(Dataset):
    """Red, green and blue images with noise: learnt in a few steps."""

    classes = ("red", "green", "blue")

    def __init__(self, counts=(12, 9, 6), seed=0, noise=0.3):
        generator = torch.Generator().manual_seed(seed)
        self.targets = [target for target, count in enumerate(counts) for _ in range(count)]
        self.images = noise * torch.randn(len(self.targets), 3, 32, 32, generator=generator)
        for place, target in enumerate(self.targets):
            self.images[place, target] += 1

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, place):
        return self.images[place], self.targets[place]


TRAIN, TEST = Colours(), Colours((4, 4, 4), seed=1)
CASES = {"colours": Case(TRAIN, TEST, 9, epochs=2)}
HEAD, TENTH = Strategy("head", {"head": 1e-2}), Strategy("tenth", {"head": 1e-2, "body": 1e-3})


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SmallResNet(num_classes=5)


@pytest.fixture(scope="module")
def compared(model):
    return compare([HEAD, TENTH], CASES, 3, model=model, progress=False)


# -- declaring ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"rates": {}}, "trains nothing: give it rates"),
        ({"rates": {"head": 0.0}}, "a rate is above 0"),
        ({"rates": {"head": 1e-3}, "thaw": {"body": 0.5}}, "thaws .*'body'.*, which has no rate"),
        ({"rates": {"head": 1e-3, "body": 1e-4}, "thaw": {"body": 1.0}}, "between 0 and 1"),
        ({"rates": {"head": 1e-3}, "thaw": {"head": 0.5}}, "every part is to thaw later"),
        ({"rates": {"head": 1e-3}, "norms": "eval"}, "norms is 'held' or 'moving', not 'eval'"),
        ({"rates": {"head": "1e-3"}}, "a rate is above 0"),
        ({"rates": {"head": float("inf")}}, "a rate is above 0"),
    ],
)
def test_a_strategy_that_makes_no_sense_is_refused(given, says):
    with pytest.raises(ValueError, match=says):
        Strategy("mine", **given)


@pytest.mark.parametrize("given", [{"rates": 1e-3}, {"rates": ["head"]}, {"rates": {"head": 1e-3}, "thaw": 0.5}])
def test_rates_are_said_for_each_part(given):
    with pytest.raises(TypeError, match="both are said for each part"):
        Strategy("mine", **given)


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("make", "head"),
    [(SmallResNet, "fc"), (small_mobilenet, "classifier.3"), (small_vit, "heads.head")],
)
def test_head_and_body_are_understood_in_any_network(make, head):
    network = make()
    optimizer, _ = HEAD.apply(network, 2)
    assert trainable(network) == {f"{head}.weight", f"{head}.bias"}
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2]
    optimizer, _ = TENTH.apply(network, 2)
    assert trainable(network) == {name for name, _ in network.named_parameters()}
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        assert rates[id(parameter)] == (1e-2 if name.startswith(head) else 1e-3)
    assert [group["name"] for group in optimizer.param_groups] == ["head", "body"]


def test_a_pattern_stands_beside_the_two_words(model):
    network = copy.deepcopy(model)
    Strategy("last", {"head": 1e-2, "layer4": 1e-3}).apply(network, 2)
    assert {name.split(".")[0] for name in trainable(network)} == {"layer4", "fc"}
    optimizer, _ = Strategy("three", {"head": 1e-2, "layer4": 1e-3, "body": 1e-4}).apply(network, 2)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {
        "head": 1e-2, "layer4": 1e-3, "body": 1e-4,
    }  # fmt: skip


def test_a_part_that_is_not_there_or_wanted_twice_is_named(model):
    with pytest.raises(ValueError, match="'layer9' matches none"):
        Strategy("wrong", {"head": 1e-2, "layer9": 1e-3}).apply(copy.deepcopy(model), 2)
    with pytest.raises(ValueError, match="both 'fc' and 'fc"):
        Strategy("twice", {"head": 1e-2, "fc.*": 1e-3}).apply(copy.deepcopy(model), 2)
    with pytest.raises(ValueError, match="the new head would stay random"):
        Strategy("body", {"body": 1e-3}).apply(copy.deepcopy(model), 2)


def test_a_part_thaws_at_its_share_and_the_optimizer_has_it_from_the_start(model):
    network = copy.deepcopy(model)
    late = Strategy("late", {"head": 1e-2, "body": 1e-3}, thaw={"body": 0.5})
    optimizer, before_epoch = late.apply(network, 4)
    assert len(optimizer.param_groups) == 2
    seen = []
    for epoch in range(4):
        before_epoch(epoch)
        seen.append(len(trainable(network)))
    assert seen[0] == seen[1] == 2
    assert seen[2] == seen[3] == len(list(network.parameters()))


def test_what_waits_never_begins_in_the_first_epoch(model):
    network = copy.deepcopy(model)
    _, before_epoch = Strategy("late", {"head": 1e-2, "body": 1e-3}, thaw={"body": 0.01}).apply(network, 4)
    assert len(trainable(network)) == 2
    before_epoch(1)
    assert len(trainable(network)) > 2


def test_what_is_frozen_is_in_eval_mode_and_norms_are_held_unless_they_are_to_move():
    def modes(**options):
        network = small_mobilenet()
        Strategy("s", {"head": 1e-2, "features.11": 1e-3}, **options).apply(network, 2)
        return {
            type(module).__name__: module.training
            for name, module in network.named_modules()
            if name in ("features.1.block.0.1", "features.11.block.0.1", "classifier.2")
        } | {name: m.training for name, m in network.named_modules() if "block.0.1" in name}

    held, moving = modes(), modes(norms="moving")
    assert not held["features.1.block.0.1"]
    assert not held["features.11.block.0.1"]
    assert moving["features.11.block.0.1"]
    assert not moving["features.1.block.0.1"]
    assert held["Dropout"]  # it belongs to the head, which learns


def test_the_usual_ones_are_five_and_their_table_says_what_learns():
    assert [one.name for one in usual()] == [
        "head only", "body at a tenth", "two phases", "everything", "from scratch",
    ]  # fmt: skip
    assert "body at 0.0003 after 50% of the training" in repr(usual())
    assert "from random numbers" in usual()._repr_html_()


# -- drawing -----------------------------------------------------------------------------------------


def test_a_draw_takes_the_same_number_of_each_class_as_far_as_there_are_enough():
    assert shares(TRAIN.targets, 9) == {0: 3, 1: 3, 2: 3}
    assert shares(TRAIN.targets, 22) == {0: 8, 1: 8, 2: 6}
    places = draw(TRAIN, 9).indices
    assert len(set(places)) == 9
    assert [TRAIN.targets[place] for place in places] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_another_seed_draws_others_and_a_larger_draw_contains_the_smaller():
    assert draw(TRAIN, 9, 0).indices == draw(TRAIN, 9, 0).indices
    assert draw(TRAIN, 9, 0).indices != draw(TRAIN, 9, 1).indices
    assert set(draw(TRAIN, 9, 3).indices) < set(draw(TRAIN, 15, 3).indices)


def test_a_draw_touches_no_random_state():
    before = random.getstate(), torch.get_rng_state()
    draw(TRAIN, 9)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("images", [2, 28, 0])
def test_a_draw_that_cannot_be_is_refused(images):
    with pytest.raises(ValueError, match=f"{images} images cannot be drawn: there are 27 of 3 classes"):
        draw(TRAIN, images)
    with pytest.raises(ValueError, match="cannot be drawn"):
        Case(TRAIN, TEST, images)


@pytest.mark.parametrize("images", [12.5, "all"])
def test_a_number_of_images_is_a_whole_one(images):
    with pytest.raises(TypeError, match=f"images is a whole number, not {images!r}"):
        draw(TRAIN, images)
    with pytest.raises(TypeError, match="images is a whole number"):
        Case(TRAIN, TEST, images)
    with pytest.raises(TypeError, match=r"epochs is a whole number, not 1\.5"):
        Case(TRAIN, TEST, epochs=1.5)


@pytest.mark.parametrize("kind", [np.array, torch.tensor, tuple])
def test_class_numbers_may_be_an_array(kind):
    same = Colours()
    same.targets = kind(same.targets)
    assert draw(same, 9).indices == draw(TRAIN, 9).indices
    assert hold_out(same, 9)[1].targets == [0] * 3 + [1] * 3 + [2] * 3


def test_a_part_of_a_dataset_has_its_classes(model):
    half = Subset(TRAIN, range(0, 27, 2))
    assert targets_of(Subset(half, [0, 13])) == [0, 2]
    assert draw(half, 6).dataset is half
    found = compare(
        [HEAD], {"half": Case(half, Subset(TEST, range(3)), 6, epochs=1)}, [0], model=model, progress=False
    )
    assert found.runs[0].images == 6
    assert DepthTrials(model, half, TEST).run(1, 6, epochs=1).images == 6


def test_a_dataset_without_classes_is_told_what_it_needs(model):
    plain = TensorDataset(torch.zeros(4, 3, 8, 8), torch.zeros(4))
    with pytest.raises(TypeError, match=r"this TensorDataset has no `classes`.* set `dataset\.classes = "):
        Case(plain, TEST)
    plain.classes = TRAIN.classes
    with pytest.raises(TypeError, match="this TensorDataset has no `targets`"):
        DepthTrials(model, plain, TEST)


def test_what_is_held_out_is_not_trained_on():
    rest, held = hold_out(TRAIN, 9)
    assert set(rest.indices) | set(held.indices) == set(range(27))
    assert not set(rest.indices) & set(held.indices)
    assert held.targets == [0] * 3 + [1] * 3 + [2] * 3
    assert len(draw(rest, 6)) == 6  # a part can be drawn from again
    assert "9 of 27 images" in repr(held)


def test_a_case_wants_the_same_classes():
    other = Colours()
    other.classes = ("red", "green", "yellow")
    with pytest.raises(ValueError, match="the classes of train and test differ"):
        Case(TRAIN, other)
    with pytest.raises(ValueError, match="epochs is 1 or more"):
        Case(TRAIN, TEST, epochs=0)


# -- comparing ---------------------------------------------------------------------------------------


def test_nothing_that_is_handed_over_changes(model):
    before, state = copy.deepcopy(model), torch.get_rng_state()
    strategies = [HEAD, TENTH, Strategy("scratch", {"head": 1e-2, "body": 1e-2}, pretrained=False)]
    compare(strategies, CASES, 1, model=model, progress=False)
    assert same_model(model, before) == []
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_seed_gives_the_same_and_another_one_another(model, compared):
    again = compare([HEAD], CASES, [1], model=model, progress=False)
    (run,) = again.runs
    (before,) = [one for one in compared.of("head", "colours") if one.seed == 1]
    assert run.accuracy == pytest.approx(before.accuracy, abs=0.01)
    assert len({one.accuracy for one in compared.runs}) > 1


def test_what_learns_learns(model):
    long = {"colours": Case(TRAIN, TEST, epochs=12)}
    found = compare([Strategy("all", {"head": 1e-2, "body": 1e-3})], long, 1, model=model, progress=False)
    assert found.mean("all", "colours") > 0.8


def test_a_run_counts_what_learned_and_what_a_step_holds(model, compared):
    head, tenth = compared.of("head", "colours")[0], compared.of("tenth", "colours")[0]
    network = SmallResNet(num_classes=3)
    assert head.trained == sum(p.numel() for p in network.fc.parameters())
    assert tenth.trained == sum(p.numel() for p in network.parameters())
    size = sum(t.nbytes for t in [*network.parameters(), *network.buffers()])
    assert head.memory < tenth.memory
    assert tenth.memory > size + 3 * 4 * tenth.trained
    assert head.images == tenth.images == 9
    assert head.seconds > 0


def test_cases_that_are_trained_alike_are_trained_once(model, monkeypatch):
    from ftlab.strategy import comparing

    trained = []
    original = comparing.run
    monkeypatch.setattr(comparing, "run", lambda *args, **more: trained.append(1) or original(*args, **more))
    shifted = Colours((4, 4, 4), seed=2, noise=1.0)
    cases = CASES | {"shifted": Case(TRAIN, shifted, 9, epochs=2), "more": Case(TRAIN, TEST, 12, epochs=2)}
    found = compare([HEAD], cases, 1, model=model, progress=False)
    assert len(trained) == 2
    assert found.cases == ["colours", "shifted", "more"]


def test_it_ends_when_it_is_told_to_and_keeps_what_is_finished(model):
    shown = []
    found = compare(
        [HEAD, TENTH], CASES, 3, model=model, progress=False,
        should_stop=lambda: len(shown) == 2, on_run=lambda so_far: shown.append(len(so_far.runs)),
    )  # fmt: skip
    assert shown == [1, 2]
    assert len(found.runs) == 2
    assert found.stopped
    assert "ended early" in repr(found)


def test_ctrl_c_ends_it_too(model):
    def press(comparison):
        raise KeyboardInterrupt

    found = compare([HEAD], CASES, 2, model=model, progress=False, on_run=press)
    assert len(found.runs) == 1
    assert found.stopped == "stopped by hand"


def test_a_rate_that_runs_away_is_noted_and_the_others_go_on(model):
    wild = Strategy("wild", {"head": 1e30, "body": 1e30}, norms="moving")
    found = compare([wild, HEAD], CASES, 1, model=model, progress=False)
    assert [run.strategy for run in found.runs] == ["wild", "head"]
    assert "the loss became" in found.runs[0].note
    assert "the loss became" in repr(found)


@pytest.mark.parametrize(
    ("strategies", "cases", "seeds", "error", "says"),
    [
        ([], CASES, 1, ValueError, "no Strategy was given"),
        ([HEAD], {}, 1, ValueError, "no Case was given"),
        (HEAD, CASES, 1, TypeError, "strategies is a list"),
        ([{"head": 1e-3}], CASES, 1, TypeError, "expected a Strategy, found a dict"),
        ([HEAD], {"colours": (TRAIN, TEST)}, 1, TypeError, "expected a Case, found a tuple"),
        ([HEAD, HEAD], CASES, 1, ValueError, "two strategies are called 'head'"),
        ([HEAD], CASES, 0, ValueError, "seeds are one or more"),
        ([HEAD], CASES, [1, 1], ValueError, "seeds are one or more different"),
        ([HEAD], CASES, -1, ValueError, "seeds are one or more different"),
        ([HEAD], CASES, 2.5, TypeError, "seeds is a whole number, not 2.5"),
        ([HEAD], CASES, [0.5], TypeError, "a seed is a whole number, not 0.5"),
        ([HEAD], CASES, "01", TypeError, "seeds is a whole number, not '01'"),
        ([HEAD], [Case(TRAIN, TEST)], 1, TypeError, "data is a dictionary.* found a list"),
        ([HEAD], Case(TRAIN, TEST), 1, TypeError, "data is a dictionary.* found a Case"),
    ],
)
def test_what_cannot_be_compared_is_refused(model, strategies, cases, seeds, error, says):
    with pytest.raises(error, match=says):
        compare(strategies, cases, seeds, model=model, progress=False)


def test_strategies_and_seeds_may_come_one_by_one(model):
    found = compare((one for one in [HEAD]), CASES, iter([4, 5]), model=model, progress=False)
    assert [(run.strategy, run.seed) for run in found.runs] == [("head", 4), ("head", 5)]


def test_a_wrong_part_is_said_before_anything_is_trained(model):
    trained = []
    wrong = Strategy("wrong", {"head": 1e-2, "layer9": 1e-3})
    with pytest.raises(ValueError, match="layer9"):
        compare([HEAD, wrong], CASES, 1, model=model, progress=False, on_run=trained.append)
    assert not trained


def test_random_numbers_for_a_part_that_no_layer_owns_are_refused():
    scratch = Strategy("scratch", {"head": 1e-2, "body": 1e-2}, pretrained=False)
    with pytest.raises(ValueError, match=r"'class_token' belongs to no layer.*name of the model"):
        compare([scratch], CASES, 1, model=small_vit(), progress=False)


def test_from_scratch_forgets_what_was_learned(model):
    from ftlab.strategy.running import fresh

    fresh_one, kept = fresh(model, False, 3), fresh(model, True, 3)
    assert not torch.equal(fresh_one.conv1.weight, model.conv1.weight)
    assert torch.equal(kept.conv1.weight, model.conv1.weight)
    assert kept.fc.out_features == 3


# -- what a comparison says --------------------------------------------------------------------------


def made_up(**accuracies):
    return Comparison(
        [
            Run(name, "case", seed, 9, accuracy, seconds=1.0, memory=2**20, trained=10)
            for name, found in accuracies.items()
            for seed, accuracy in enumerate(found)
        ]
    )


PAIRED = made_up(a=[0.60, 0.70, 0.80, 0.75], b=[0.57, 0.68, 0.77, 0.73], c=[0.80, 0.60, 0.75, 0.65])


def test_means_and_spreads_are_those_of_the_runs():
    assert PAIRED.mean("a", "case") == pytest.approx(0.7125)
    assert PAIRED.spread("a", "case") == pytest.approx(torch.tensor([0.60, 0.70, 0.80, 0.75]).std().item())
    assert "71.2 ± 8.5" in repr(PAIRED)


def test_a_difference_is_paired_so_luck_that_is_in_both_goes_away():
    found = PAIRED.difference("a", "b", "case")
    assert found.mean == pytest.approx(0.025)
    assert found.error == pytest.approx(0.0025 * 4 / 12**0.5, rel=0.02)
    assert found.clear
    assert "+2.5 ± 0.3 points over 4 seeds" in repr(found)
    assert not PAIRED.difference("a", "c", "case").clear
    assert not PAIRED.difference("b", "a", "case").mean > 0


def test_the_best_and_what_is_level_with_it():
    assert PAIRED.best("case") == "a"
    assert PAIRED.level_with_best("case") == ["a", "c"]
    rows = {row["strategy"]: row["case"] for row in PAIRED.table().to_dict()}
    assert rows["a"].endswith("*")
    assert not rows["b"].endswith("*")


def test_one_seed_tells_nothing_clear():
    one = made_up(a=[0.9], b=[0.2])
    assert not one.difference("a", "b", "case").clear
    assert "*" not in repr(one)
    assert "one seed" in repr(one)
    assert one.spread("a", "case") == 0


def test_a_name_that_is_not_there_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match="no strategy 'd' here"):
        PAIRED.mean("d", "case")
    with pytest.raises(KeyError, match="the nearest is 'case'"):
        PAIRED.mean("a", "cases")


def test_two_comparisons_can_be_put_together_and_the_later_run_counts():
    both = PAIRED + made_up(a=[0.10], d=[0.5])
    assert both.strategies == ["a", "b", "c", "d"]
    assert both.of("a", "case")[0].accuracy == 0.10
    assert len(both.runs) == 13


def test_strategies_without_a_common_seed_are_not_subtracted():
    other = Comparison([Run("d", "case", 9, 9, 0.5, seconds=1.0, memory=1, trained=1)])
    with pytest.raises(ValueError, match="no seed in common"):
        (PAIRED + other).difference("a", "d", "case")


def test_strategies_without_a_common_seed_stand_in_one_table_and_cannot_be_told_apart():
    runs = [Run("d", "case", seed, 9, 0.1, seconds=1.0, memory=1, trained=1) for seed in (8, 9)]
    both = PAIRED + Comparison(runs)
    assert both.level_with_best("case") == ["a", "c", "d"]
    assert "10.0 ± 0.0 *" in repr(both)
    assert both.plot()._repr_png_().startswith(b"\x89PNG")


def test_one_that_was_stopped_before_its_first_result_can_be_shown(model):
    found = compare([HEAD], CASES, 1, model=model, progress=False, should_stop=lambda: True)
    assert not found.runs
    for text in (repr(found), found._repr_html_()):
        assert "no training was finished" in text
        assert "ended early: " in text
    with pytest.raises(ValueError, match="nothing to draw"):
        found.plot()
    assert (found + PAIRED).runs == PAIRED.runs


def test_nothing_is_marked_where_a_stop_left_one_strategy_with_a_single_seed():
    stopped = made_up(a=[0.4, 0.3], b=[0.5])
    assert "40.0" not in repr(stopped)
    assert "35.0 ± 7.1" in repr(stopped)
    assert "*" not in repr(stopped)
    assert "*" in repr(made_up(a=[0.4, 0.3], b=[0.5, 0.4]))


def test_it_can_be_saved_and_read_again(tmp_path):
    PAIRED.save(tmp_path / "found.json")
    again = Comparison.load(tmp_path / "found.json")
    assert again.to_dict() == PAIRED.to_dict()
    assert again.about["torch"] == torch.__version__
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="is no comparison that save"):
        Comparison.load(tmp_path / "other.json")


def test_the_picture_says_what_it_shows():
    figure = PAIRED.plot()
    assert repr(figure) == "accuracy of 3 strategies on 1 data sets; best on case a with 71%"
    assert figure._repr_png_().startswith(b"\x89PNG")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["71 ± 9 *", "69 ± 9", "70 ± 9 *"]


def test_a_cell_that_was_not_run_is_left_empty():
    half = PAIRED + Comparison([Run("a", "new", 0, 9, 0.5, seconds=1.0, memory=1, trained=1)])
    assert {row["strategy"]: row["new"] for row in half.table().to_dict()} == {"a": "50.0", "b": "", "c": ""}
    assert "not run" in [text.get_text() for text in half.plot().axes[0].texts]
    assert half.best("new") == "a"


def test_the_stored_grid_is_whole_and_says_where_it_comes_from():
    grid = measured()
    assert len(grid.strategies) == 6
    for case in grid.cases:
        assert {len(grid.of(strategy, case)) > 1 for strategy in grid.strategies} == {True}
    assert {"date", "machine", "torch", "torchvision", "pixels", "rates"} <= set(grid.about)
    assert all(strategy in grid.about["rates"] for strategy in grid.strategies)
    assert all(0 <= run.accuracy <= 1 for run in grid.runs)


# -- trainings at a chosen depth ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def trials(model):
    return DepthTrials(model, TRAIN, TEST)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_what_is_computed_once_gives_what_the_whole_training_gives(model, trials, depth):
    quick = trials.run(depth, 9, lr=1e-2, body_lr=1e-3, epochs=3, seed=2)
    strategy = trials.strategy(depth, 1e-2, 1e-3)
    cases = {"colours": Case(TRAIN, TEST, 9, epochs=3)}
    (plain,) = compare([strategy], cases, [2], model=model, progress=False).runs
    assert quick.accuracy == plain.accuracy
    assert quick.trained == plain.trained


def test_the_order_of_trainings_does_not_matter(trials):
    there = [trials.run(depth, 12, epochs=2).accuracy for depth in (1, 4, len(trials.blocks))]
    back = [trials.run(depth, 12, epochs=2).accuracy for depth in (len(trials.blocks), 4, 1)]
    assert there == back[::-1]


def test_images_are_looked_at_once_for_each_depth(model, monkeypatch):
    fresh = DepthTrials(model, TRAIN, TEST)
    looked = []
    original = Colours.__getitem__
    monkeypatch.setattr(Colours, "__getitem__", lambda self, place: looked.append(place) or original(self, place))
    fresh.run(1, 9, epochs=3)
    first = len(looked)
    assert first >= len(TRAIN) + len(TEST)
    fresh.run(1, 9, epochs=3, seed=1)
    fresh.run(1, 12, epochs=2)
    assert len(looked) == first
    fresh.run(2, 9, epochs=1)
    assert len(looked) > first


def test_the_model_handed_over_stays_as_it_was(model):
    before, state = copy.deepcopy(model), torch.get_rng_state()
    other = DepthTrials(model, TRAIN, TEST)
    other.run(len(other.blocks), 9, epochs=1)
    other.run(2, 9, epochs=1)
    assert same_model(model, before) == []
    assert torch.equal(torch.get_rng_state(), state)


def test_a_depth_that_is_not_there_is_refused(trials):
    with pytest.raises(ValueError, match="depth is 1"):
        trials.run(99, 9)
    with pytest.raises(ValueError, match="cannot be drawn"):
        trials.run(1, 99)


def test_it_stops_when_it_is_told_to(trials):
    with pytest.raises(KeyboardInterrupt):
        trials.run(2, 9, should_stop=lambda: True)


def test_a_vision_transformer_is_trained_at_any_depth_too():
    torch.manual_seed(0)
    transformer = DepthTrials(small_vit(), TRAIN, TEST)
    for depth in range(1, len(transformer.blocks) + 1):
        assert transformer.run(depth, 9, epochs=1).images == 9
    assert nn.Linear is type(transformer.model.heads.head)


# -- how long, and what is kept ----------------------------------------------------------------------


def test_the_expected_seconds_grow_with_depth_and_images_and_shrink_with_what_is_known(model):
    trials = DepthTrials(model, TRAIN, TEST)
    assert trials.expected(6, 24) > trials.expected(6, 12)
    shallow = trials.expected(2, 12)
    pace = trials.pace()
    assert pace.before(2) > 0
    assert sum(pace.blocks) == pytest.approx(pace.before(2) + pace.rest(2))
    parts = trials._parts(2, 12, 10)
    assert parts["train images"][1] > 0
    trials.run(2, 12, epochs=1)
    parts = trials._parts(2, 12, 10)
    assert parts["train images"] == parts["test images"] == (0, 0.0)
    assert shallow > 0


def test_a_pace_that_was_wrong_is_corrected_and_something_short_says_little(model):
    pace = DepthTrials(model, TRAIN, TEST).pace()
    pace.correct(100.0, 200.0)
    assert pace.factor == pytest.approx(2.0, rel=0.02)
    pace.correct(0.01, 1.0)
    assert pace.factor == pytest.approx(2.0, rel=0.1)


def test_looks_and_steps_are_reported_and_the_last_step_is_near_the_end(trials):
    looks, steps = [], []
    found = trials.run(
        2, 12, epochs=5, on_look=lambda *look: looks.append(look), on_step=lambda *step: steps.append(step)
    )
    assert [epoch for epoch, _ in looks] == [1, 2, 4]
    assert all(0 <= accuracy <= 1 for _, accuracy in looks)
    done, total = zip(*steps, strict=True)
    assert list(done) == sorted(done)
    assert len(set(total)) == 1
    assert 0 < done[-1] <= total[0]
    assert found.accuracy == trials.run(2, 12, epochs=5).accuracy  # looking changes nothing


def test_a_training_that_was_stopped_leaves_nothing_behind(model, trials):
    fresh = DepthTrials(model, TRAIN, TEST)
    for calls in (1, 3, 6):
        left = iter(range(calls))
        with pytest.raises(KeyboardInterrupt):
            fresh.run(3, 12, epochs=9, seed=5, should_stop=lambda left=left: next(left, None) is None)
    assert fresh.run(2, 12, epochs=2).accuracy == trials.run(2, 12, epochs=2).accuracy
    assert fresh.run(3, 12, epochs=2).accuracy == trials.run(3, 12, epochs=2).accuracy


def test_other_test_images_share_what_is_computed_and_have_results_of_their_own(model, trials):
    noisy = Colours((6, 6, 6), seed=2, noise=3.0)
    other = trials.on(noisy)
    assert other.kept is trials.kept
    assert other.run(2, 12, epochs=2).accuracy == DepthTrials(model, TRAIN, noisy).run(2, 12, epochs=2).accuracy
    assert trials.test is TEST
    wrong = Colours()
    wrong.classes = ("cyan", "magenta", "yellow")
    with pytest.raises(ValueError, match="the classes of train and test differ"):
        trials.on(wrong)


class Trembling(Colours):
    """Another image each time."""

    def __getitem__(self, place):
        return self.images[place] + torch.randn(3, 32, 32), self.targets[place]


def test_images_that_are_others_each_time_are_refused_before_anything_is_trained(model):
    with pytest.raises(ValueError, match="draws random numbers"):
        DepthTrials(model, Trembling(), TEST)
    with pytest.raises(ValueError, match="draws random numbers"):
        DepthTrials(model, TRAIN, Trembling())


class Seeded(Colours):
    """Makes its images from torch's random state, which it sets and puts back; as `FakeData` does."""

    def __getitem__(self, place):
        state = torch.get_rng_state()
        torch.manual_seed(place)
        image = self.images[place] + torch.randn(3, 32, 32)
        torch.set_rng_state(state)
        return image, self.targets[place]


def test_images_that_are_made_from_a_seed_are_the_same_in_a_training(model):
    trials = DepthTrials(model, Seeded(), TEST)
    trials.run(2, 12, epochs=1)
    kept = trials.kept.of(len(trials.blocks), trials.train, lambda: False)
    assert torch.equal(kept[3][0], Seeded()[3][0])
    everything = len(trials.blocks)
    assert trials.run(everything, 12, epochs=2).accuracy == trials.run(everything, 12, epochs=2).accuracy
