"""Odd files as other people's programs write them: each is explained, and its fix runs and loads what it says."""

import gzip
import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm
from torchvision import models

from ftlab.checkpoints import inspect
from ftlab.checkpoints.diagnosing import diagnose
from ftlab.checkpoints.doctor import examine
from ftlab.checkpoints.exhibits.models import small, trained
from ftlab.checkpoints.file_findings import file_findings
from ftlab.checkpoints.findings.families import best_fit
from ftlab.checkpoints.info import CheckpointInfo, GlobalInfo
from ftlab.checkpoints.reading.pickles import SAFE
from ftlab.checkpoints.reading.verdicts import DANGEROUS, Verdict, verdict

TRUTH = trained().state_dict()
FIRST, NECK = "stem.conv.weight", "neck.weight"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def saved(thing, **given) -> bytes:
    stream = io.BytesIO()
    torch.save(thing, stream, **given)
    return stream.getvalue()


def repacked(change=lambda name: name, more=(), how=zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(TRUTH))) as old, zipfile.ZipFile(stream, "w", how) as new:
        for member in old.infolist():
            new.writestr(change(member.filename), old.read(member))
        for name in more:
            new.writestr(name, "x")
    return stream.getvalue()


def scripted() -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(trained()), stream)
    return stream.getvalue()


def pruned() -> nn.Module:
    model = trained()
    prune.l1_unstructured(model.neck, "weight", 0.5)
    return model


def without(*ends: str) -> dict:
    return {key: value for key, value in TRUTH.items() if not key.endswith(ends)}


def changed(make, *names: str) -> dict:
    return {key: make(value) if not names or key in names else value for key, value in TRUTH.items()}


class Learner:
    """An object of somebody's program that has the model as an attribute."""

    def __init__(self):
        self.model, self.rate = trained(), 0.1


EVERYTHING, WITHOUT = lambda: TRUTH, lambda *names: lambda: {k: v for k, v in TRUTH.items() if k not in names}

# name: the file, what the doctor finds for the museum's network, and what that network has afterwards
ODD = {
    "channels 1": (
        lambda: saved(changed(lambda t: t.sum(1, keepdim=True), FIRST)),
        ["channels"],
        lambda: changed(lambda t: t.sum(1, keepdim=True).repeat(1, 3, 1, 1) / 3, FIRST),
    ),
    "channels 4": (
        lambda: saved(changed(lambda t: torch.cat([t, t[:, :1]], 1), FIRST)),
        ["channels"],
        WITHOUT(FIRST),
    ),
    "channels and classes": (
        lambda: saved({**changed(lambda t: t[:3], "head.weight", "head.bias"), FIRST: TRUTH[FIRST][:, :2]}),
        ["channels", "classes"],
        WITHOUT(FIRST, "head.weight", "head.bias"),
    ),
    "kernel": (lambda: saved(changed(lambda t: t[:, :, :1, :1], FIRST)), ["shape"], WITHOUT(FIRST)),
    "head under another name": (
        lambda: saved({key.replace("head.", "classifier.1."): value for key, value in TRUTH.items()}),
        ["renamed"],
        EVERYTHING,
    ),
    "other head under another name": (
        lambda: saved({key.replace("head.", "fc."): t[:3] if "head" in key else t for key, t in TRUTH.items()}),
        ["renamed", "classes"],
        WITHOUT("head.weight", "head.bias"),
    ),
    "half of the names with module.": (
        lambda: saved({("module." * (n % 2)) + key: value for n, (key, value) in enumerate(TRUTH.items())}),
        ["prefix"],
        EVERYTHING,
    ),
    "counters of thop": (
        lambda: saved({**TRUTH, "total_ops": torch.zeros(1), "neck.total_params": torch.zeros(1)}),
        ["counters"],
        EVERYTHING,
    ),
    "pruned": (
        lambda: saved(pruned().state_dict()),
        ["pruned"],
        lambda: {**TRUTH, "neck.weight": pruned().neck.weight.detach()},
    ),
    "no statistics": (lambda: saved(without(*STATISTICS)), ["statistics"], lambda: without(*STATISTICS)),
    "parameters alone": (
        lambda: saved(dict(trained().named_parameters())), ["statistics"], lambda: without(*STATISTICS)
    ),
    "only the head": (
        lambda: saved({key: TRUTH[key] for key in ("head.weight", "head.bias")}),
        ["missing"],
        lambda: {key: TRUTH[key] for key in ("head.weight", "head.bias")},
    ),
    "zeros": (lambda: saved(changed(torch.zeros_like)), ["zeros"], lambda: changed(torch.zeros_like)),
    "complex": (lambda: saved(changed(lambda t: t.to(torch.complex64), NECK)), ["other-numbers"], WITHOUT(NECK)),
    "whole numbers": (lambda: saved(changed(lambda t: t.to(torch.int8), NECK)), ["other-numbers"], WITHOUT(NECK)),
    "no values": (lambda: saved(changed(lambda t: t.to("meta"), NECK)), ["no-values"], WITHOUT(NECK)),
    "nothing but meta": (lambda: saved(changed(lambda t: t.to("meta"))), ["no-values"], None),
    "sparse": (lambda: saved(changed(lambda t: t.to_sparse(), NECK)), ["sparse"], EVERYTHING),
    "sparse by rows": (lambda: saved(changed(lambda t: t.to_sparse_csr(), NECK)), ["sparse"], EVERYTHING),
    "placeholders": (lambda: saved(changed(lambda t: torch.empty(0), NECK)), ["empty-tensors"], WITHOUT(NECK)),
    "long rows": (lambda: saved({"_flat_param": torch.ones(500)}), ["flat"], None),
    "protocol 4": (lambda: saved(TRUTH, pickle_protocol=4), ["protocol"], EVERYTHING),
    "protocol 1": (lambda: saved(TRUTH, pickle_protocol=1), ["protocol"], EVERYTHING),
    "pickle.dump": (lambda: pickle.dumps(TRUTH), ["pickle"], EVERYTHING),
    "something added": (lambda: repacked(more=["__MACOSX/._a"]), ["outside"], EVERYTHING),
    "an absolute path": (lambda: repacked(more=["/etc/evil", "../../evil"]), ["outside"], EVERYTHING),
    "packed with its folder": (lambda: repacked(lambda name: f"outer/{name}"), ["outside"], EVERYTHING),
    "compressed": (lambda: repacked(how=zipfile.ZIP_DEFLATED), [], EVERYTHING),
    "a list": (lambda: saved([TRUTH, {"epoch": 3}]), ["nested"], EVERYTHING),
    "two in a list": (
        lambda: saved({"nets": [TRUTH, changed(lambda t: t * 2)]}), ["nested", "several-models"], EVERYTHING
    ),
    "a number as a key": (lambda: saved({0: TRUTH, "epoch": 3}), ["nested"], EVERYTHING),
    "more than tensors": (
        lambda: saved({**TRUTH, "epoch": 3, NECK: TRUTH[NECK] * float("nan")}), ["not-finite"], WITHOUT(NECK)
    ),
    "an object with a model": (lambda: saved(Learner()), ["dangerous", "whole-model", "nested"], EVERYTHING),
    "TorchScript": (scripted, ["dangerous"], EVERYTHING),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # PyTorch warns of sparse tensors and of TorchScript
@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_explained_and_its_fix_loads_the_right_numbers(name, tmp_path):
    make, kinds, truth = ODD[name]
    path = tmp_path / "odd.pt"
    path.write_bytes(make())
    model = small()
    diagnosis = diagnose(path, model)
    assert [finding.kind for finding in diagnosis.findings] == kinds
    code, text = examine(str(path))
    assert code in (0, 1)
    assert "Traceback" not in text
    if truth is None:
        assert not diagnosis.fix
        return
    by_hand = {"model": small()}
    before = {key: value.clone() for key, value in by_hand["model"].state_dict().items()}
    exec(diagnosis.fix, by_hand)
    ours = by_hand["model"].state_dict
    if len(truth()) > len(before) // 2:
        diagnosis.apply()
        assert all(
            torch.equal(a, model.state_dict()[k])
            for k, a in by_hand["model"].state_dict().items()
            if k in truth()
        )
    for key, value in ours().items():
        wanted = truth().get(key, before[key])
        assert torch.allclose(value.float(), wanted.float()), key
    assert set(diagnosis.unloaded) == before.keys() - truth().keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in ODD if name != "compressed"])
def test_plain_pytorch_alone_would_raise_or_load_something_else(name, tmp_path):
    """The partner: each of these is a real trouble."""
    make, _, truth = ODD[name]
    (tmp_path / "odd.pt").write_bytes(make())
    model = small()
    try:
        model.load_state_dict(torch.load(tmp_path / "odd.pt", weights_only=True))
    except Exception:
        return
    assert name in ("zeros", "complex", "whole numbers", "sparse", "sparse by rows")
    assert truth is not None


def test_colours_and_grey_give_the_same_picture(tmp_path):
    """What the fix of another number of channels promises."""
    grey, colour = nn.Conv2d(1, 5, 3), nn.Conv2d(3, 5, 3)
    picture = torch.rand(2, 1, 6, 6)
    three = picture.repeat(1, 3, 1, 1)
    for file, sees, model, shown in [
        (colour, three, nn.Conv2d(1, 5, 3), picture),
        (grey, picture, nn.Conv2d(3, 5, 3), three),
    ]:
        diagnose(file.state_dict(), model).apply()
        torch.testing.assert_close(model(shown), file(sees))


@pytest.mark.parametrize("old", [False, True])
def test_weight_norm_is_computed(old):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    normed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for layer in normed:
            (nn.utils.weight_norm if old else weight_norm)(layer)
    diagnosis = diagnose(normed.state_dict(), plain)
    assert [finding.kind for finding in diagnosis.findings] == ["weight-norm"]
    diagnosis.apply()
    for one, other in zip(plain, normed, strict=True):
        torch.testing.assert_close(one.weight, other.weight)


def test_a_layer_that_torch_quantised_as_it_ran_becomes_numbers(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
        torch.save(packed.state_dict(), tmp_path / "a.pt")
        diagnosis = diagnose(tmp_path / "a.pt", nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        assert [finding.kind for finding in diagnosis.findings] == ["quantised"]
        names = {"model": nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))}
        exec(diagnosis.fix, names)
    for one, other in zip(names["model"].parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=0.01, rtol=0.1)


def timm(state: dict) -> dict:
    """Give a vision transformer of torchvision the names that timm has, in timm's order."""
    words = {
        "ln_1": "norm1", "ln_2": "norm2", "self_attention.in_proj_": "attn.qkv.",
        "self_attention.out_proj": "attn.proj", "mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2",
        "encoder.layers.encoder_layer_": "blocks.", "encoder.ln": "norm", "heads.head": "head",
        "class_token": "cls_token", "encoder.pos_embedding": "pos_embed", "conv_proj": "patch_embed.proj",
    }  # fmt: skip
    found = {}
    for key, value in state.items():
        for ours, theirs in words.items():
            key = key.replace(ours, theirs)
        found[key] = value
    first = ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"]
    return {**{key: found[key] for key in first}, **found}


def test_a_transformer_of_timm_is_renamed_tensor_by_tensor(tmp_path):
    """Its leaves are not renamed alike everywhere, and its first tensors are in another order."""
    make = lambda: models.VisionTransformer(32, 8, 3, 2, 12, 24, num_classes=5)  # noqa: E731
    model, other = make(), make()
    torch.save(timm(model.state_dict()), tmp_path / "vit.pt")
    diagnosis = diagnose(tmp_path / "vit.pt", other)
    assert [finding.kind for finding in diagnosis.findings] == ["renamed"]
    exec(diagnosis.fix, {"model": other})
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_a_likeness_is_named_with_its_share():
    """A resnet18 that lost some tensors and got others is near to resnet18, and not sure to be one."""
    state = {key: value for key, value in models.resnet18().state_dict().items() if not key.startswith("layer1.")}
    state |= {f"layer5.{n}.weight": torch.ones(3, 3) for n in range(8)}
    (finding,) = diagnose(state, small()).findings
    assert finding.kind == "other-model"
    assert "nearest to torchvision's resnet18" in finding.means
    assert best_fit({"a": (7, 7)})[1] < 0.3
    (finding,) = diagnose({"a": torch.ones(7, 7)}, small()).findings
    assert "nearest" not in finding.means


def test_a_file_is_looked_into_once(tmp_path, monkeypatch):
    from ftlab.checkpoints import diagnosing, doctor

    calls = []
    for place in (diagnosing, doctor):
        monkeypatch.setattr(place, "inspect", lambda *a, **k: (calls.append(a), inspect(*a, **k))[1])
    torch.save(models.squeezenet1_1(num_classes=3).state_dict(), tmp_path / "a.pt")
    assert examine(str(tmp_path / "a.pt"), "squeezenet1_1", 3)[0] == 0
    assert len(calls) == 1


# Reading


def test_the_instructions_are_those_of_pytorchs_safe_loader():
    import pickletools
    import re

    from torch import _weights_only_unpickler as unpickler

    source = Path(unpickler.__file__).read_text()
    load = source[source.index("def load(self)") :]
    known = set(re.findall(r"\b([A-Z][A-Z0-9_]+)\[0\]", load))
    names = {instruction.name for instruction in pickletools.opcodes}
    assert known & names == SAFE


def test_names_of_sharded_tensors_are_those_that_torch_trusts():
    import torch.distributed.tensor as tensor  # puts them onto the list

    trusted = [one for one in torch.serialization.get_safe_globals() if not isinstance(one, tuple)]
    names = {f"{one.__module__}.{one.__qualname__}" for one in trusted}
    assert f"{tensor.DTensor.__module__}.DTensor" in names
    ours = {
        name for name in names if name.startswith(("torch.distributed.tensor", "torch.distributed.device_mesh"))
    }
    assert all(verdict(name)[0] not in DANGEROUS for name in ours)
    assert verdict("torch.distributed.launcher.api.elastic_launch")[0] in DANGEROUS


def test_a_sharded_tensor_is_named():
    name = "torch.distributed.tensor.DTensor"
    info = CheckpointInfo(Path("rank0.pt"), "torch zip", globals=[GlobalInfo(name, *verdict(name))])
    assert [finding.kind for finding in file_findings(info)] == ["sharded"]
    plain = CheckpointInfo(Path("a.pt"), "torch zip", globals=[GlobalInfo("torch.Tensor", Verdict.PLAIN, "")])
    assert file_findings(plain) == []


def test_the_state_of_an_optimizer_without_its_groups_is_no_model(tmp_path):
    state = {0: {"momentum_buffer": torch.ones(3)}, 1: {"exp_avg": torch.ones(3), "step": torch.ones(())}}
    for thing in ({"state": state}, {"optimizer": {"state": state}}):
        torch.save(thing, tmp_path / "a.pt")
        assert not any(part.kind == "model" for part in inspect(tmp_path / "a.pt").parts)


def test_a_shard_of_zero_is_named(tmp_path):
    inner = {"zero_stage": 2, "single_partition_of_fp32_groups": [torch.ones(9)]}
    torch.save({"optimizer_state_dict": inner, "ds_version": "0.9"}, tmp_path / "a.pt")
    code, text = examine(str(tmp_path / "a.pt"), "squeezenet1_1")
    assert code == 1
    assert "zero-shard" in text
    assert "zero_to_fp32.py" in text


def test_what_is_packed_must_not_unpack_to_gigabytes(tmp_path, monkeypatch):
    from ftlab.checkpoints.reading import archive

    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("a/data.pkl", b"\x80\x02}q\x00.")
        new.writestr("a/data/0", bytes(1 << 20))
    assert inspect(path, checksums=True).whole
    monkeypatch.setattr(archive, "EXPANDED", 1 << 19)
    assert [problem.kind for problem in inspect(path, checksums=True).problems] == ["too-large"]


def test_a_type_of_eight_bits_is_named_without_a_model(tmp_path):
    torch.save(
        {"fc.weight": torch.ones(2, 2).to(torch.float8_e4m3fn), "fc.bias": torch.ones(2)}, tmp_path / "a.pt"
    )
    code, text = examine(str(tmp_path / "a.pt"))
    assert code == 1
    assert "float8_e4m3fn" in text


def test_the_ending_safetensors_on_a_file_of_torch_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(saved(TRUTH))
    diagnosis = diagnose(path, small())
    assert [finding.kind for finding in diagnosis.findings] == ["suffix"]
    names = {"model": small()}
    exec(diagnosis.fix, names)
    assert torch.equal(names["model"].state_dict()["neck.weight"], TRUTH["neck.weight"])


# Files that are none


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (b'{"message": "Not Found"}', "foreign", "JSON"),
        (b'{"metadata": {"total_size": 1}, "weight_map": {}}', "foreign", "index"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "html-page", "AccessDenied"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(9), "foreign", "RAR"),
        (b"\x04\x22M\x18" + bytes(9), "foreign", "LZ4"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "foreign", "macOS"),
        (b"HTTP/1.1 200 OK\r\n\r\nPK\x03\x04", "foreign", "web server"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", "foreign", "ONNX"),
        (b"\x1c\0\0\0TFL3" + bytes(9), "foreign", "Lite"),
        (b"import torch\nmodel = torch.load('x')\n", "foreign", 'a text: "import torch'),
        (b"epoch: 1\nlr: 0.3\n", "foreign", "a text"),
        (gzip.compress(b"x", mtime=0), "foreign", "gzip"),
    ],
)
def test_what_is_no_checkpoint_is_called_by_its_name(data, kind, says, tmp_path):
    (tmp_path / "model.pt").write_bytes(data)
    (problem,) = inspect(tmp_path / "model.pt").problems
    assert problem.kind == kind
    assert says in problem.seen
    assert problem.means


def test_archives_of_other_programs_are_called_by_their_names(tmp_path):
    def kind_of(*members: str) -> str:
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            for name in members:
                archive.writestr(name, "{}")
        (problem,) = inspect(tmp_path / "a.pt").problems
        return f"{problem.kind}: {problem.seen}"

    assert "numpy" in kind_of("conv1.weight.npy", "fc.npy")
    assert "exported" in kind_of("a/models/model.json", "a/data/weights/weight_0")
    assert "none that torch.save wrote" in kind_of("config.json", "model.weights.h5")


def test_a_real_program_of_torch_export_is_called_so(tmp_path):
    program = torch.export.export(nn.Linear(2, 3), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "a.pt2")
    (problem,) = inspect(tmp_path / "a.pt2").problems
    assert problem.kind == "exported"
    assert torch.export.load(tmp_path / "a.pt2").state_dict.keys() == {"weight", "bias"}


def test_folders_of_other_programs_are_called_by_their_names(tmp_path):
    def look(*names: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps({}))
        (problem,) = inspect(folder).problems
        return f"{problem.kind}: {problem.seen} {problem.means}"

    assert "unpacked" in look("model/data.pkl", "model/version")
    assert "unpacked" in look("data.pkl", "version")
    assert "zero_to_fp32.py" in look("zero_to_fp32.py", "latest")
    assert "says what is where" in look("model.safetensors.index.json", "model-00001-of-00002.safetensors")


def test_a_checkpoint_that_was_unpacked_is_packed_again_by_the_command_it_names(tmp_path):
    import subprocess
    import sys

    torch.save(TRUTH, tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        archive.extractall(tmp_path / "folder")
    (problem,) = inspect(tmp_path / "folder").problems
    command = problem.means[problem.means.index("python -m zipfile") :].split()
    command = [sys.executable, *command[1:-1], str(tmp_path / "folder" / "model")]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert diagnose(tmp_path / "model.pt", small()).findings == []
