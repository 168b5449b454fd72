"""The checks of the lesson on checkpoints: what beginners write, besides what stands beside the exercises."""

import copy
import io
import os
import pickle
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

from ftlab.checkpoints import load, load_into, remap_optimizer, restore, save
from ftlab.exercises import checkpoints
from ftlab.exercises.core import Outcome
from tests.answers import is_wrong, passes


def judged(exercise, answer):
    return exercise.judge(answer, seed=5)


# -- keep_best ---------------------------------------------------------------------------------------


def test_keeping_the_best_by_pickle_or_by_a_file_passes(tmp_path):
    def by_pickle(model, train_epoch, evaluate, epochs):
        best = None
        for _ in range(epochs):
            train_epoch()
            score = evaluate()
            if best is None or score > best[0]:
                best = score, pickle.dumps(model.state_dict())
        return pickle.loads(best[1])

    def by_file(model, train_epoch, evaluate, epochs):
        scores = []
        for epoch in range(epochs):
            train_epoch()
            scores.append(evaluate())
            torch.save(model.state_dict(), tmp_path / f"{epoch}.pt")
        return torch.load(tmp_path / f"{scores.index(max(scores))}.pt")

    passes(checkpoints.keep_best, by_pickle)
    passes(checkpoints.keep_best, by_file)


def test_keeping_before_training_or_a_dictionary_of_views_is_wrong():
    def too_early(model, train_epoch, evaluate, epochs):
        best, top = None, -1
        for _ in range(epochs):
            state = copy.deepcopy(model.state_dict())
            train_epoch()
            if evaluate() > top:
                best, top = state, evaluate()
        return best

    def dictionary(model, train_epoch, evaluate, epochs):
        best, top = None, -1
        for _ in range(epochs):
            train_epoch()
            if evaluate() > top:
                best, top = dict(model.state_dict().items()), evaluate()
        return best

    is_wrong(checkpoints.keep_best, too_early, "after epoch 0")
    is_wrong(checkpoints.keep_best, dictionary, "the state after the last one")


# -- first_rows, pack --------------------------------------------------------------------------------


def test_rows_in_other_ways():
    passes(checkpoints.first_rows, lambda features, count: torch.tensor(features[:count].tolist()))
    passes(checkpoints.first_rows, lambda features, count: torch.from_numpy(features[:count].numpy().copy()))
    passes(checkpoints.first_rows, lambda features, count: torch.cat([features[:count]]))
    is_wrong(checkpoints.first_rows, lambda features, count: features.split(count)[0], "`torch.save` writes")
    is_wrong(checkpoints.first_rows, lambda features, count: features.narrow(0, 0, count), "`torch.save` writes")
    is_wrong(checkpoints.first_rows, lambda features, count: features[:count].numpy(), "`ndarray` came back")


def test_packing_in_other_ways():
    def rounded(accuracy, losses, options):
        return {
            "accuracy": round(float(accuracy)),
            "losses": losses.tolist(),
            "lr": options.lr,
            "folder": "runs/7",
        }

    def nested(accuracy, losses, options):
        return {
            "accuracy": accuracy.item(),
            "losses": losses.tolist(),
            "options": {k: str(v) for k, v in vars(options).items()},
        }

    def lists(accuracy, losses, options):
        return {
            "accuracy": accuracy.item(),
            "losses": losses.tolist(),
            "lr": options.lr,
            "folder": str(options.folder),
        }

    passes(checkpoints.pack, lists)
    is_wrong(checkpoints.pack, rounded, "The accuracy is 1")
    is_wrong(checkpoints.pack, nested, "In the file there is")


# -- predictions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("exercise", [checkpoints.which_open, checkpoints.half_loaded, checkpoints.needed])
def test_a_prediction_of_another_kind_or_with_unknown_names_is_told_so(exercise):
    is_wrong(exercise, 3, "is of type `int`")
    is_wrong(exercise, {"zzz"}, "`zzz`: no such name is in the task")


def test_one_string_of_letters_is_no_set():
    is_wrong(checkpoints.which_open, "adf", "one string")


# -- loading -----------------------------------------------------------------------------------------


def test_loading_with_the_library_passes():
    passes(checkpoints.load_anywhere, lambda path, model: restore_plain(path, model))
    passes(checkpoints.load_anywhere, lambda path, model: load_into(model, path))


def restore_plain(path, model):
    model.load_state_dict(load(path))


def test_loading_in_other_ways():
    def by_lambda(path, model):
        model.load_state_dict(torch.load(path, map_location=lambda storage, place: storage))

    def through_bytes(path, model):
        with open(path, "rb") as file:  # noqa: PTH123
            model.load_state_dict(torch.load(io.BytesIO(file.read()), map_location="cpu"))

    def to_meta(path, model):
        model.load_state_dict(torch.load(path, map_location="meta"), assign=True)

    def not_strict(path, model):
        model.load_state_dict(torch.load(path, map_location="cpu").copy(), strict=False)

    passes(checkpoints.load_anywhere, by_lambda)
    passes(checkpoints.load_anywhere, through_bytes)
    passes(checkpoints.load_anywhere, not_strict)
    assert judged(checkpoints.load_anywhere, to_meta).outcome is Outcome.WRONG


def test_names_in_other_ways():
    def recursive(state):
        def short(name):
            for prefix in ("module.", "_orig_mod."):
                if name.startswith(prefix):
                    return short(name[len(prefix) :])
            return name

        return {short(name): value for name, value in state.items()}

    def in_place(state):
        while prefixed := [name for name in state if name.startswith(("module.", "_orig_mod."))]:
            for name in prefixed:
                state[name.split(".", 1)[1]] = state.pop(name)
        return state

    passes(checkpoints.bare, recursive)
    passes(checkpoints.bare, in_place)


def test_names_with_one_prefix_of_two_or_without_the_beginning_are_wrong():
    def pytorch_s_own(state):
        torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(state, "module.")
        return state

    def last_part(state):
        return {".".join(name.split(".")[-2:]): value for name, value in state.items()}

    is_wrong(checkpoints.bare, pytorch_s_own, "became")
    is_wrong(checkpoints.bare, last_part, "became")


def test_matching_with_the_library_and_by_try():
    def with_receipt(model, state):
        return list(load_into(model, state).kept)

    def one_by_one(model, state):
        left = []
        for name, tensor in model.state_dict().items():
            try:
                tensor.copy_(state[name])
            except (KeyError, RuntimeError):
                left.append(name)
        return left

    def broadcast(model, state):  # the head's bias of 7 does not fit, a counter does
        for name, tensor in model.state_dict().items():
            tensor.data = state[name]
        return []

    passes(checkpoints.load_matching, with_receipt)
    passes(checkpoints.load_matching, one_by_one)
    assert judged(checkpoints.load_matching, broadcast).outcome is Outcome.WRONG


def test_a_tie_in_other_ways():
    from ftlab.checkpoints import build

    def with_the_library(make_model, state):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.pt")  # noqa: PTH118
            torch.save(state, path)
            return build(make_model, path)

    def returns_nothing(make_model, state):
        make_model().load_state_dict(state)

    passes(checkpoints.load_tied, with_the_library)
    is_wrong(checkpoints.load_tied, returns_nothing, "gave back `None`")
    is_wrong(checkpoints.load_tied, lambda make_model, state: make_model(), "not those of the file")


# -- going on ----------------------------------------------------------------------------------------


def test_resuming_half_of_it_is_named():
    def moments_only(path, model, optimizer, scheduler):
        saved = torch.load(path)
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        torch.set_rng_state(saved["random"])
        return saved["epoch"] + 1

    def seeded(path, model, optimizer, scheduler):
        saved = torch.load(path)
        for name, part in (("model", model), ("optimizer", optimizer), ("scheduler", scheduler)):
            part.load_state_dict(saved[name])
        torch.manual_seed(0)
        return saved["epoch"] + 1

    def stepped(path, model, optimizer, scheduler):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        for _ in range(saved["epoch"]):
            optimizer.step()  # without gradients it does nothing, and the scheduler is quiet
            scheduler.step()
        torch.set_rng_state(saved["random"])
        return saved["epoch"] + 1

    is_wrong(checkpoints.resume, moments_only, "in `model 0.weight`")
    is_wrong(checkpoints.resume, seeded, "in `model")
    is_wrong(checkpoints.resume, stepped, "in `optimizer group 0 lr`")


def test_carrying_over_with_the_library_passes():
    def remapped(optimizer, state):
        names = optimizer.param_groups[0]["param_names"]
        model = torch.nn.Module()
        for name, parameter in zip(names, optimizer.param_groups[0]["params"], strict=True):
            part, _, leaf = name.rpartition(".")
            if not hasattr(model, part):
                model.add_module(part, torch.nn.Module())
            setattr(model.get_submodule(part), leaf, parameter)
        remap_optimizer(optimizer, state, model=model)

    passes(checkpoints.carry_over, remapped)


def test_saving_whole_in_other_ways():
    def named_temporary(state, path):
        with tempfile.NamedTemporaryFile(dir=Path(path).parent, delete=False) as file:
            torch.save(state, file)
        os.replace(file.name, path)  # noqa: PTH105

    def with_rename(state, path):
        torch.save(state, path + ".part")
        Path(path + ".part").rename(path)

    def keeps_the_new(state, path):
        torch.save(state, path + ".part")
        shutil.copy(path + ".part", path + ".copy")
        os.replace(path + ".copy", path)  # noqa: PTH105

    passes(checkpoints.save_whole, named_temporary)
    passes(checkpoints.save_whole, with_rename)
    is_wrong(checkpoints.save_whole, keeps_the_new, "is left over")


def test_the_check_of_saving_puts_back_what_it_watches():
    before = os.replace, os.rename, shutil.move
    judged(checkpoints.save_whole, lambda state, path: None)
    judged(checkpoints.save_whole, checkpoints.save_whole.function)
    assert (os.replace, os.rename, shutil.move) == before


def test_save_and_restore_of_the_library_hold_what_the_lesson_asks(tmp_path):
    model = torch.nn.Linear(2, 1)
    save(tmp_path / "x.pt", model=model, extra={"epoch": 4})
    assert restore(tmp_path / "x.pt", model=torch.nn.Linear(2, 1))["extra"]["epoch"] == 4
