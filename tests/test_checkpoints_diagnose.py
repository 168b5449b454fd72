"""Why a file does not load: every finding's fix is run, and the model it makes is compared with the right one."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models

from ftlab import pretrained
from ftlab.checkpoints import diagnose, inspect, load_into, museum
from ftlab.checkpoints.exhibits.exhibit import PLANS, trap
from ftlab.checkpoints.findings.families import best_fit, signature
from ftlab.freezing.snapshot import Snapshot
from ftlab.pretrained.lite import our_key, weights_file


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return museum(tmp_path_factory.mktemp("museum") / "rooms")


def net(*, classes: int = 3, width: int = 6) -> nn.Sequential:
    torch.manual_seed(5)
    body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, width))
    return nn.Sequential(body, nn.ReLU(), nn.Linear(width, classes))


def fresh(**kwargs) -> nn.Sequential:
    model = net(**kwargs)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    return model


def run(diagnosis, model, state=None) -> nn.Module:
    """Run the fixes one after the other, as somebody does who copies them, on a model of their own."""
    names = {"model": model, "state": state}
    for fix in [finding.fix for finding in diagnosis.findings] or [diagnosis.fix]:
        exec(fix, names)
    return names["model"]


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))


def fingerprint(model: nn.Module) -> list:
    tensors = [(t.data_ptr(), t.clone(), t.requires_grad) for t in [*model.parameters(), *model.buffers()]]
    return [str(tensors), [m.training for m in model.modules()], str(torch.get_rng_state().tolist())]


# The museum


@pytest.mark.parametrize("name", [plan.make.__name__ for plan in PLANS])
def test_every_exhibit_is_found_out_and_its_fixes_repair_it(rooms, name):
    exhibit = rooms[name]
    model = exhibit.model()
    before = fingerprint(model)
    diagnosis = diagnose(exhibit.path, model)
    assert tuple(finding.kind for finding in diagnosis.findings) == exhibit.finds
    assert all(finding.seen and finding.means for finding in diagnosis.findings)
    assert fingerprint(model) == before
    assert not exhibit.is_repaired(model)
    if exhibit.truth is None:
        with pytest.raises(ValueError, match="nothing of it can be loaded"):
            diagnosis.apply()
        assert fingerprint(model) == before
    else:
        by_hand = run(diagnosis, exhibit.model())
        receipt = diagnosis.apply()
        assert exhibit.is_repaired(model)
        assert exhibit.is_repaired(by_hand)
        assert same(model, by_hand)
        assert set(receipt.kept) == set(diagnosis.unloaded)
        assert set(exhibit.truth) | set(receipt.kept) >= set(model.state_dict())
    assert not rooms.sprung


@pytest.mark.parametrize("name", ["booby_trap", "booby_trap_in_a_pickle"])
def test_the_trap_is_real(name, tmp_path):
    """The partner of the tests that it was not run: without protection it runs."""
    rooms = museum(tmp_path / "rooms")
    if name == "booby_trap":
        torch.load(rooms[name].path, weights_only=False)
    else:
        import pickle

        pickle.loads(rooms[name].path.read_bytes())
    assert rooms.sprung
    assert not museum(rooms.folder).sprung  # it is set up anew


def test_the_museum_is_always_the_same_small_and_has_thirty_exhibits(rooms, tmp_path):
    before = torch.get_rng_state()
    again = museum(tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), before)
    assert len(rooms) >= 30
    assert len({exhibit.name for exhibit in rooms}) == len({exhibit.path for exhibit in rooms}) == len(rooms)
    # torch's old format writes addresses of memory, and a trap has the name of its folder in it
    other_bytes = {"old_format", "old_cut_short", "booby_trap", "booby_trap_in_a_pickle"}
    for one, other in zip(rooms, again, strict=True):
        same_bytes = one.path.read_bytes() == other.path.read_bytes()
        assert same_bytes or one.name in other_bytes, one.name
        if one.truth:
            theirs, ours = (inspect(exhibit.path).state_dict() for exhibit in (one, other))
            assert all(torch.equal(theirs[key].nan_to_num(), ours[key].nan_to_num()) for key in ours)
    assert sum(exhibit.path.stat().st_size for exhibit in rooms) < 2**20


def test_the_museum_does_not_move_into_a_folder_with_other_things(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis.txt.*is no museum"):
        museum(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert trap(tmp_path).exists() is False


# Findings on tensors


PREFIXES = [
    "module.",
    "_orig_mod.",
    "_orig_mod.module.",
    "module._orig_mod.",
    "model.",
    "backbone.",
    "encoder.net.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_taken_away(prefix):
    state = {prefix + key: value for key, value in net().state_dict().items()}
    model = fresh()
    diagnosis = diagnose(state, model)
    assert [finding.kind for finding in diagnosis.findings] == ["prefix"]
    assert same(run(diagnosis, fresh(), state), net())
    assert diagnosis.apply().share_of_tensors == 1
    assert same(model, net())


def test_a_word_in_the_middle_of_a_name_is_left_alone():
    """The partner: `submodule.` is no wrapper, though it ends like one."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.submodule = nn.Linear(2, 3)
            self.module = nn.Linear(3, 4)

    model = Net()
    assert not diagnose(model.state_dict(), Net())
    diagnosis = diagnose({f"module.{key}": value for key, value in model.state_dict().items()}, Net())
    assert diagnosis.apply().share_of_tensors == 1
    assert same(diagnosis.model, model)


def test_a_file_that_fits_has_no_finding_and_a_fix_of_plain_pytorch(tmp_path):
    torch.save(net().state_dict(), tmp_path / "a.pt")
    diagnosis = diagnose(tmp_path / "a.pt", fresh())
    assert not diagnosis
    assert "ftlab" not in diagnosis.fix
    assert same(run(diagnosis, fresh()), net())


@pytest.mark.parametrize("deep", [["state_dict"], ["model"], ["checkpoint", "model_state_dict"], ["a", "b", "c"]])
def test_a_state_dict_some_levels_down_is_found(deep, tmp_path):
    held = net().state_dict()
    for key in reversed(deep):
        held = {key: held, "epoch": 3}
    torch.save(held, tmp_path / "a.pt")
    for given in (held, tmp_path / "a.pt"):
        diagnosis = diagnose(given, fresh())
        assert [finding.kind for finding in diagnosis.findings] == ["nested"]
        assert same(run(diagnosis, fresh(), held), net())


def test_a_module_that_was_loaded_whole_is_taken_apart():
    diagnosis = diagnose({"model": net(), "epoch": 3}, fresh())
    diagnosis.apply()
    assert same(diagnosis.model, net())


def test_everything_at_once(tmp_path):
    """Nested, wrapped, compiled, ten classes, half precision, with numpy beside it."""
    import numpy as np

    state = {
        f"_orig_mod.module.{k}": v.half() if v.is_floating_point() else v
        for k, v in net(classes=10).state_dict().items()
    }
    torch.save({"state_dict": state, "best": np.float64(0.5)}, tmp_path / "a.pt")
    model = fresh()
    diagnosis = diagnose(tmp_path / "a.pt", model)
    kinds = [finding.kind for finding in diagnosis.findings]
    assert kinds == ["metadata", "nested", "prefix", "classes", "half-precision"]
    assert diagnosis.unloaded == ["2.weight", "2.bias"]
    by_hand = run(diagnosis, fresh())
    receipt = diagnosis.apply()
    assert same(model, by_hand)
    assert receipt.kept.keys() == {"2.weight", "2.bias"}
    assert torch.equal(model[0][0].weight, net()[0][0].weight.half().float())


def test_an_optimizer_alone_is_told_from_a_model():
    optimizer = torch.optim.SGD(net().parameters(), lr=1)
    diagnosis = diagnose(optimizer.state_dict(), fresh())
    assert [finding.kind for finding in diagnosis.findings] == ["optimizer"]
    assert diagnosis.fix == ""


@pytest.mark.parametrize("nothing", [{}, {"epoch": 3}, {"a": {"b": {}}}, {1: 2}])
def test_what_has_no_tensors_is_named(nothing):
    assert [finding.kind for finding in diagnose(nothing, fresh()).findings] == ["no-model"]


def test_an_adapter_alone_is_added_to_what_the_model_has():
    model = net()
    up, down = torch.ones(3, 2), torch.ones(2, 6)
    state = {"base_model.model.2.lora_A.weight": down, "base_model.model.2.lora_B.weight": up}
    diagnosis = diagnose(state, model)
    assert diagnosis.findings[0].kind == "lora"
    diagnosis.apply(at_least=0)
    assert torch.equal(model[2].weight, net()[2].weight + 2)


@pytest.mark.filterwarnings("ignore:.*quantize.*are deprecated")
def test_tensors_that_torch_quantised_become_numbers(tmp_path):
    state = net().state_dict()
    state["2.weight"] = torch.quantize_per_tensor(state["2.weight"], 0.01, 0, torch.qint8)
    torch.save(state, tmp_path / "a.pt")
    for given in (state, tmp_path / "a.pt"):
        model = fresh()
        diagnosis = diagnose(given, model)
        assert [finding.kind for finding in diagnosis.findings] == ["quantised"]
        diagnosis.apply()
        assert torch.equal(model[2].weight, state["2.weight"].dequantize())


def test_square_weights_are_turned_along_with_the_others():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 5))
    state = {key: value.T.clone() if value.dim() == 2 else value for key, value in model.state_dict().items()}
    diagnosis = diagnose(state, nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 5)))
    assert "1 more are square" in diagnosis.findings[0].seen
    diagnosis.apply()
    assert same(diagnosis.model, model)


def test_a_file_without_the_head_leaves_it_random_and_says_so():
    state = {key: value for key, value in net().state_dict().items() if not key.startswith("2.")}
    diagnosis = diagnose(state, fresh())
    assert [finding.kind for finding in diagnosis.findings] == ["missing"]
    assert set(diagnosis.apply().kept) == {"2.weight", "2.bias"}


def test_a_part_that_only_the_file_has_is_left_out_and_named():
    diagnosis = diagnose({**net().state_dict(), "box.weight": torch.ones(2, 2)}, fresh())
    assert [finding.kind for finding in diagnosis.findings] == ["unused"]
    assert diagnosis.unused == ["box.weight"]
    assert same(run(diagnosis, fresh(), {**net().state_dict(), "box.weight": torch.ones(2, 2)}), net())


def test_counters_that_old_files_do_not_have_are_no_finding():
    state = {key: value for key, value in net().state_dict().items() if not key.endswith("num_batches_tracked")}
    assert not diagnose(state, fresh())
    assert not diagnose(net().state_dict(), fresh()).unloaded


def test_an_average_beside_the_model_under_another_prefix_is_named():
    state = net().state_dict()
    held = {
        **{f"model.{k}": v for k, v in state.items()},
        **{f"ema_model.module.{k}": v for k, v in state.items()},
    }
    diagnosis = diagnose(held, fresh())
    assert [finding.kind for finding in diagnosis.findings] == ["prefix", "ema"]
    assert same(run(diagnosis, fresh(), held), net())


# Renaming


def test_the_file_of_the_embedded_backbone_is_renamed_by_a_rule_that_is_found():
    """A real one: TensorFlow's words into torchvision's. The rule is compared with the one written by hand."""
    model = pretrained.load(weights=None)
    diagnosis = diagnose(weights_file(), model)
    assert [finding.kind for finding in diagnosis.findings] == ["renamed"]
    names = {}
    exec(diagnosis.fix.replace("model.load_state_dict(state)", ""), names)
    for key in torch.load(weights_file()):
        assert names["renamed"](key) == our_key(key)
    assert diagnosis.apply().share_of_elements == 1
    assert same(model, pretrained.load())


def test_gamma_and_beta_are_names_of_leaves():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(7))
            self.a, self.b, self.c = nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 4)

    words = {"a": "first", "b": "second", "c": "third"}
    leaves = {"b.weight": "gamma", "b.bias": "beta"}
    model = Net()
    parts = {key: value for key, value in model.state_dict().items() if key != "scale"}
    state = {"factor": model.scale.detach() + 1}
    state |= {f"{words[k[0]]}.{leaves.get(k, k[2:])}": value for k, value in parts.items()}
    diagnosis = diagnose(state, Net())
    assert diagnosis.findings[0].kind == "renamed"
    diagnosis.apply()
    assert torch.equal(diagnosis.model.scale, state["factor"])
    assert torch.equal(diagnosis.model.b.weight, model.b.weight)
    assert torch.equal(diagnosis.model.c.bias, model.c.bias)


# Other models


def test_a_deeper_one_of_the_family_is_named_although_it_would_load_without_a_word():
    model = models.resnet18(num_classes=7)
    state = models.resnet34(num_classes=7).state_dict()
    assert not copy.deepcopy(model).load_state_dict(state, strict=False).missing_keys  # quietly wrong
    diagnosis = diagnose(state, model)
    assert [finding.kind for finding in diagnosis.findings] == ["depth"]
    assert "resnet34" in diagnosis.findings[0].means
    built = run(diagnosis, model, state)
    assert all(torch.equal(built.state_dict()[key], value) for key, value in state.items())
    with pytest.raises(ValueError, match="resnet34"):
        diagnosis.apply()


@pytest.mark.parametrize(
    ("theirs", "ours", "kind"),
    [
        ("resnet34", "resnet18", "depth"),
        ("resnet18", "resnet34", "depth"),
        ("mobilenet_v2", "resnet18", "other-model"),
    ],
)
def test_models_of_torchvision_are_told_apart(theirs, ours, kind):
    state = {key: torch.zeros((), dtype=torch.float32).expand(shape) for key, shape in signature(theirs).items()}
    (finding,) = diagnose(state, models.get_model(ours)).findings
    assert finding.kind == kind
    assert theirs in finding.means


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_lite0"]
)
def test_the_model_that_fits_best_is_found_by_names_and_by_shapes_alone(name):
    shapes = signature(name)
    assert best_fit(shapes) == (name, 1.0)
    assert best_fit({str(number): shape for number, shape in enumerate(shapes.values())}) == (name, 1.0)


def test_a_signature_is_that_of_the_real_model():
    real = {key: tuple(value.shape) for key, value in models.regnet_y_400mf().state_dict().items()}
    before = torch.get_rng_state()
    signature.cache_clear()
    assert signature("regnet_y_400mf") == real
    assert torch.equal(torch.get_rng_state(), before)


# The receipt


def test_the_receipt_counts_what_really_changed():
    model = net()
    state = {key: value.clone() for key, value in net().state_dict().items()}
    assert load_into(model, state).changed_elements == 0
    state["2.bias"][0] += 1
    receipt = load_into(model, state)
    assert receipt.share_of_tensors == 1
    assert receipt.changed_elements == pytest.approx(1 / sum(t.numel() for t in state.values()))
    assert [t.name for t in receipt.tensors if t.changed] == ["2.bias"]
    rows = {row["part"]: row for row in receipt.table().to_dict()}
    assert sum(row["tensors"] for row in rows.values()) == len(state)


def test_what_is_kept_and_skipped_is_said_with_the_reason():
    state = net(classes=9).state_dict()
    del state["0.0.bias"]
    state["stranger"] = torch.ones(1)
    receipt = load_into(fresh(), state)
    assert receipt.kept == {
        "0.0.bias": "it is not in the file",
        "2.weight": "the file's has another shape",
        "2.bias": "the file's has another shape",
    }
    assert receipt.skipped == {
        "stranger": "the model has no tensor of this name",
        "2.weight": "its shape is (9, 6), the model's (3, 6)",
        "2.bias": "its shape is (9,), the model's (3,)",
    }
    assert "skipped stranger" in repr(receipt)


def test_too_little_is_an_error_and_nothing_is_loaded():
    model = fresh()
    state = {f"module.{key}": value for key, value in net().state_dict().items()}
    assert model.load_state_dict(state, strict=False).missing_keys  # PyTorch is content
    before = fingerprint(model)
    with pytest.raises(ValueError, match=r"only 0 of 11 tensors .*'module.0.0.weight'.*diagnose"):
        load_into(model, state)
    assert fingerprint(model) == before
    load_into(model, {"2.weight": torch.ones(3, 6)}, at_least=0)
    with pytest.raises(ValueError, match="share from 0 to 1"):
        load_into(model, state, at_least=50)


class Fragile(nn.Linear):
    """A layer that breaks while it is loaded, after others have been."""

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        raise KeyboardInterrupt


def test_a_model_is_never_left_half_loaded():
    model = nn.Sequential(nn.Linear(2, 2), Fragile(2, 2))
    state = {key: torch.full_like(value, 7) for key, value in model.state_dict().items()}
    before = fingerprint(model)
    with pytest.raises(KeyboardInterrupt):
        load_into(model, state)
    assert fingerprint(model) == before


def test_ties_modes_gradients_and_flags_stay():
    model = net().eval()
    model[0][3].requires_grad_(False)
    model.tied = nn.Linear(6, 3)
    model.tied.weight = model[2].weight
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state["2.weight"] = state["tied.weight"] = torch.ones(3, 6)
    load_into(model, state)
    assert model.tied.weight is model[2].weight
    assert not model.training
    assert not model[0][3].weight.requires_grad
    assert model[2].weight.sum() == 18


def test_a_model_without_memory_is_refused():
    with torch.device("meta"):
        model = net()
    with pytest.raises(ValueError, match=r"meta device.*to_empty"):
        load_into(model, net().state_dict())


@pytest.mark.parametrize("part", ["", "state_dict"])
def test_a_file_is_loaded_by_its_path(part, tmp_path):
    torch.save({"state_dict": net().state_dict(), "epoch": 3}, tmp_path / "a.pt")
    model = fresh()
    load_into(model, tmp_path / "a.pt", part=part)
    assert same(model, net())
    with pytest.raises(ValueError, match=r"no tensors under 'ema'; it has state_dict"):
        load_into(model, tmp_path / "a.pt", part="ema")
    with pytest.raises(FileNotFoundError):
        load_into(model, tmp_path / "b.pt")


def test_looking_changes_nothing():
    model = net().eval()
    model[0].train()
    model[2].weight.grad = torch.ones(3, 6)
    state = {f"module.{key}": value for key, value in net(classes=5).state_dict().items()}
    before, theirs = fingerprint(model), str(state)
    gradient = model[2].weight.grad
    repr(diagnose(state, model))
    assert fingerprint(model) == before
    assert model[2].weight.grad is gradient
    assert str(state) == theirs
    assert Snapshot(model).values  # and it is still a model like any other
