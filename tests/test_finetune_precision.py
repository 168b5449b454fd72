"""In which precision a run trains: what suits, what is chosen, and that it stays so when a run goes on."""

import json
import shutil

import pytest
import torch

from ftlab import finetune, pretrained
from ftlab.checkpoints import load
from ftlab.cli import main
from ftlab.finetune import precision, rundir, running
from ftlab.finetune.plan import Plan, choose
from ftlab.paths import DATA

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TINY = {"size": 32, "epochs": 2, "batch_size": 4, "strategy": "everything"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Six emoji of each of two classes."""
    root = tmp_path_factory.mktemp("images")
    for name in ("food", "sport"):
        (root / name).mkdir()
        for file in sorted((DATA / "emoji" / "noto" / name).iterdir())[:6]:
            shutil.copy(file, root / name)
    return root


def model(name):
    with torch.device("meta"):
        return pretrained.load(name, weights=None)


def suited(monkeypatch, *answer):
    monkeypatch.setattr(precision, "suits", lambda model, device: answer)


def run(images, out, **choices):
    return finetune.run(images, out, say=lambda line: None, **TINY | choices)


def weights(out):
    return load(out / rundir.LAST)["model"]


def equal(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(("has", "wanted"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_computes_in_bfloat16_if_it_really_can(monkeypatch, has, wanted):
    asked = {}

    def is_supported(including_emulation=True):
        asked["emulated"] = including_emulation
        return has or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    name, why = precision.suits(model("resnet18"), GPU)
    assert name == wanted
    assert why
    assert asked == {"emulated": False}


@pytest.mark.parametrize(
    ("name", "processor", "wanted"),
    [
        ("resnet18", {"avx512_bf16": True}, "bfloat16"),
        ("resnet18", {"amx_bf16": True}, "bfloat16"),
        ("resnet18", {"avx512_f": True}, "float32"),  # it would only imitate bfloat16
        ("resnet18", {}, "float32"),
        ("efficientnet_lite0", {"avx512_bf16": True}, "float32"),
        ("mobilenet_v3_small", {"amx_bf16": True}, "float32"),
    ],
)
def test_a_processor_does_so_where_it_helps(monkeypatch, name, processor, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    assert precision.suits(model(name), CPU)[0] == wanted


@pytest.mark.parametrize("given", [{}, {"precision": None}, {"precision": "auto"}])
def test_what_suits_is_chosen_with_its_reason(given):
    plan = choose([100], {"folder": "x"} | given, ("bfloat16", "it can"))
    assert (plan.precision, plan.why["precision"]) == ("bfloat16", "it can")


def test_a_flag_overrides_what_suits():
    plan = choose([100], {"folder": "x", "precision": "float16"}, ("bfloat16", "it can"))
    assert plan.precision == "float16"
    assert "precision" not in plan.why


def test_a_body_that_is_run_once_is_run_in_float32():
    head = {"folder": "x", "strategy": "head"}
    assert choose([9], head, ("bfloat16", "it can")).precision == "float32"
    assert choose([9], head | {"augment": True}, ("bfloat16", "it can")).precision == "bfloat16"


def test_auto_is_a_wish_and_never_a_plan():
    with pytest.raises(ValueError, match="precision 'auto' is unknown"):
        Plan("x", precision="auto")


def test_the_choice_is_kept_on_another_device(images, tmp_path, monkeypatch, capsys):
    suited(monkeypatch, "bfloat16", "it can")
    run(images, tmp_path / "straight")
    real = running._Run._one_step

    def stop(self, *args):
        if self.step == 2:
            raise KeyboardInterrupt
        real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(running, "SAVE_EVERY", 0.0)
        patch.setattr(running._Run, "_one_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run(images, tmp_path / "stopped")
    suited(monkeypatch, "float32", "another machine")
    command = ["finetune", str(images), "--out", str(tmp_path / "stopped"), "--resume"]
    assert main([*command, "--precision", "float32"]) == 1
    assert "precision was 'bfloat16', now 'float32'" in capsys.readouterr().err
    assert main([*command, "--precision", "auto"]) == 0
    plan = json.loads((tmp_path / "stopped" / "plan.json").read_text())["plan"]
    assert (plan["precision"], plan["why"]["precision"]) == ("bfloat16", "it can")
    assert equal(weights(tmp_path / "straight"), weights(tmp_path / "stopped"))


def test_each_precision_is_really_computed_in(images, tmp_path):
    head = {"strategy": "head", "epochs": 1}
    for name in ("float32", "bfloat16", "float16"):
        run(images, tmp_path / name, precision=name, **head)
    saved = [load(tmp_path / name / rundir.LAST) for name in ("float32", "bfloat16", "float16")]
    assert ["scaler" in content for content in saved] == [False, False, True]
    found = [content["model"] for content in saved]
    assert not equal(found[0], found[1])
    assert not equal(found[0], found[2])
    assert not equal(found[1], found[2])
    for name, tensor in found[0].items():
        assert tensor.dtype == found[1][name].dtype == found[2][name].dtype


def test_a_stop_in_float16_keeps_the_scale_of_the_gradients(images, tmp_path, monkeypatch):
    choices = {"precision": "float16", "strategy": "head"}
    run(images, tmp_path / "straight", **choices)
    straight = load(tmp_path / "straight" / rundir.LAST)

    def stop(line):
        if line.startswith("epoch 1 "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune.run(images, tmp_path / "stopped", say=stop, **TINY | choices)
    first = load(tmp_path / "stopped" / rundir.LAST)
    run(images, tmp_path / "stopped", resume=True, **choices)
    resumed = load(tmp_path / "stopped" / rundir.LAST)
    assert first["scaler"] != straight["scaler"]  # it counts the good steps
    assert resumed["scaler"] == straight["scaler"]
    assert equal(resumed["model"], straight["model"])


def test_what_is_measured_is_what_predict_computes(images, tmp_path):
    """A run in bfloat16 is measured in float32: its loss is that of the saved model, to the last digits."""
    from ftlab import data, training
    from ftlab.finetune.predicting import load_best

    history = run(images, tmp_path / "run", precision="bfloat16")
    val = data.folder(images, "val", transform=pretrained.preprocessing(size=32))
    measured = training.evaluate(load_best(tmp_path / "run"), training.loader(val), progress=False)
    assert history.best["val loss"] == pytest.approx(measured.loss, rel=1e-4)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_channels_last_change_the_layout_and_no_value(images, name):
    from ftlab import data
    from ftlab.finetune.features import lay_channels_last
    from ftlab.finetune.images import Reader

    reader = Reader(data.folder(images, "val"), pretrained.preprocessing(size=32))
    net = pretrained.load(name, weights=None).eval()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    assert lay_channels_last(net, reader, CPU)
    assert equal(before, net.state_dict())
    conv = next(module for module in net.modules() if isinstance(module, torch.nn.Conv2d))
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_model_that_cannot_take_them_stays_as_it_is(images):
    from ftlab import data
    from ftlab.finetune.features import lay_channels_last
    from ftlab.finetune.images import Reader

    class Views(torch.nn.Sequential):
        def forward(self, images):
            return self[0](images).view(len(images), -1)

    net = Views(torch.nn.Conv2d(3, 4, 3))
    reader = Reader(data.folder(images, "val"), pretrained.preprocessing(size=32))
    assert not lay_channels_last(net, reader, CPU)
    assert net[0].weight.is_contiguous()
