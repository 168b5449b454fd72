"""`ftlab finetune`: the same run on one process, on several, on two machines, and after a stop at any moment."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from ftlab import finetune, training
from ftlab.checkpoints import load
from ftlab.cli import main
from ftlab.finetune import rundir, running
from ftlab.finetune.images import augmented, order
from ftlab.finetune.plan import Plan, choose
from ftlab.finetune.predicting import load_best
from ftlab.finetune.ranks import Ranks
from ftlab.paths import DATA

CLASSES = ("animal", "food", "sport")
SMALL = {"size": 32, "epochs": 3, "batch_size": 5, "strategy": "last third"}
FLAGS = ["--size", "32", "--epochs", "3", "--batch-size", "5", "--strategy", "last third"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Eight emoji of each of three classes."""
    root = tmp_path_factory.mktemp("images")
    for name in CLASSES:
        (root / name).mkdir()
        for file in sorted((DATA / "emoji" / "noto" / name).iterdir())[:8]:
            shutil.copy(file, root / name)
    return root


@pytest.fixture(scope="module")
def straight(images, tmp_path_factory):
    """A run from beginning to end, on one process."""
    out = tmp_path_factory.mktemp("straight") / "run"
    history = finetune.run(images, out, say=lambda line: None, **SMALL)
    return out, history


def start(command: list[str], images: Path, out: Path, *more: str, **options) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "-m", "ftlab", "finetune", str(images), "--out", str(out), *FLAGS, *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, **options,
    )  # fmt: skip


def differences(one: Path, other: Path) -> float:
    """Return the largest difference between the last tensors of two runs."""
    first, second = (load(out / rundir.LAST)["model"] for out in (one, other))
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)


def test_a_run_leaves_a_model_a_plan_and_a_report(straight):
    out, history = straight
    assert {path.name for path in out.iterdir()} == {"plan.json", "best.pt", "last.pt", "report.html"}
    assert history.epochs == 3
    assert history.rows[-1]["train loss"] < history.rows[0]["train loss"]
    report = (out / "report.html").read_text()
    for words in ("What moved", "confusion matrix", "surest mistakes", torch.__version__, "Made with"):
        assert words in report
    assert "<td>no " in report.replace("<td>no<", "<td>no <")  # the frozen part has not moved


def test_the_best_model_is_as_good_as_the_report_says(straight, images):
    out, history = straight
    plan, classes = rundir.read_plan(out)
    from ftlab import data, pretrained

    val = data.folder(images, "val", transform=pretrained.preprocessing(plan.backbone, size=plan.size))
    measured = training.evaluate(load_best(out), training.loader(val), progress=False)
    assert measured.accuracy == pytest.approx(history.best["val accuracy"])
    assert classes == list(CLASSES)


def test_a_stop_at_any_step_costs_nothing(straight, images, tmp_path, monkeypatch):
    out, wanted = straight
    monkeypatch.setattr(running, "SAVE_EVERY", 0.0)
    real, seen = running._Run._one_step, []

    def stop_now_and_then(self, *args):
        real(self, *args)
        seen.append(self.step)
        if len(seen) in (2, 5, 9):  # within the first, second and third epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(running._Run, "_one_step", stop_now_and_then)
    for tried in range(4):
        try:
            found = finetune.run(images, tmp_path / "run", resume=tried > 0, say=lambda line: None, **SMALL)
        except KeyboardInterrupt:
            continue
    assert differences(out, tmp_path / "run") == 0
    assert found.rows == wanted.rows
    assert len(seen) > max(seen)  # a step after the last save was done twice


def test_killed_and_resumed_in_a_fresh_process_to_the_same_bits(straight, images, tmp_path):
    out, _ = straight
    with start([sys.executable], images, tmp_path / "run") as process:
        for line in process.stdout:
            if line.startswith("epoch 1"):
                process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "run" / rundir.REPORT).exists()
    with start([sys.executable], images, tmp_path / "run", "--resume") as again:
        said = again.communicate()[0]
    assert again.returncode == 0, said
    assert "going on after step" in said
    assert differences(out, tmp_path / "run") == 0


def test_two_processes_make_the_same_model(straight, images, tmp_path):
    out, wanted = straight
    with start([*TORCHRUN, "--nproc-per-node", "2"], images, tmp_path / "run") as process:
        said = process.communicate()[0]
    assert process.returncode == 0, "".join(said)
    assert differences(out, tmp_path / "run") < 1e-4
    saved = load(tmp_path / "run" / rundir.LAST)
    assert saved["extra"]["rows"][-1]["val loss"] == pytest.approx(wanted.rows[-1]["val loss"], abs=1e-4)


def test_two_machines_make_the_same_model(straight, images, tmp_path):
    out, _ = straight
    agent = [
        *TORCHRUN,
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
        "--rdzv-backend",
        "c10d",
        "--rdzv-id",
        tmp_path.name,
    ]
    agent += ["--rdzv-endpoint", f"localhost:{free_port()}", "--local-addr", "localhost"]
    machines = [start(agent, images, tmp_path / "run") for _ in range(2)]
    said = [machine.communicate()[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert differences(out, tmp_path / "run") < 1e-4


def test_a_rank_that_dies_is_started_again_and_nothing_is_lost(straight, images, tmp_path):
    out, _ = straight
    said, killed = [], False
    command = [*TORCHRUN, "--nproc-per-node", "2", "--max-restarts", "1"]
    with start(command, images, tmp_path / "run") as process:
        for line in process.stdout:
            said.append(line)
            if line.startswith("epoch 1") and not killed:
                os.kill(max(children(process.pid)), signal.SIGKILL)
                killed = True
    assert killed
    assert process.returncode == 0, "".join(said)
    assert any("going on after step" in line for line in said)
    assert differences(out, tmp_path / "run") < 1e-4


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
