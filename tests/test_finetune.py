"""`ftlab finetune`: the same run on one process, on several, on two machines, and after a stop at any moment."""

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from html import escape
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
from tests.ports import free_port

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
def said():
    """What the straight run said, line by line."""
    return []


@pytest.fixture(scope="module")
def straight(images, tmp_path_factory, said):
    """A run from beginning to end, on one process."""
    out = tmp_path_factory.mktemp("straight") / "run"
    history = finetune.run(images, out, say=said.append, **SMALL)
    return out, history


def start(command: list[str], images: Path, out: Path, *more: str, **options) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "-m", "ftlab", "finetune", str(images), "--out", str(out), *FLAGS, *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, **options,
    )  # fmt: skip


KILLS = """
import builtins, os, signal, time
from pathlib import Path

tell, once = builtins.print, Path(__file__).with_name("killed")

def tell_and_kill(*args, **more):
    tell(*args, **more)
    if str(args[0]).startswith("epoch 1 ") and not once.exists():
        once.touch()
        parent = os.getppid()
        ranks = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        os.kill(max(map(int, ranks)) if "RANK" in os.environ else os.getpid(), signal.SIGKILL)
        time.sleep(1000)  # the launcher ends the ranks that are left

builtins.print = tell_and_kill
"""


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """After the first epoch what is started, or its last rank, is killed: from inside, so that it is in time."""
    folder = tmp_path / "at the start of Python"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(KILLS)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    return folder / "killed"


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
    assert re.search(r"<td[^>]*>no *<", report)  # the frozen part has not moved


def test_epochs_are_counted_from_1_wherever_they_are_shown(straight, said):
    out, history = straight
    assert [row["epoch"] for row in history.rows] == [1, 2, 3]
    for row in history.rows:
        (line,) = [line for line in said if line.startswith(f"epoch {row['epoch']} of 3: ")]
        assert line.endswith(f"val accuracy {row['val accuracy']:.3f}")
    best = history.best["epoch"]
    assert f"best epoch: {best}" in repr(history)
    assert f"best epoch: {best}" in (out / "report.html").read_text()
    assert f"(epoch {best});" in said[-1]
    assert load(out / rundir.BEST)["extra"] == {"epoch": best}
    assert [row["epoch"] for row in load(out / rundir.LAST)["extra"]["rows"]] == [1, 2, 3]


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


def test_killed_and_resumed_in_a_fresh_process_to_the_same_bits(straight, images, tmp_path, killed):
    out, _ = straight
    with start([sys.executable], images, tmp_path / "run") as process:
        said = process.communicate()[0]
    assert (process.returncode, killed.exists()) == (-signal.SIGKILL, True), said
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


def test_a_rank_that_dies_is_started_again_and_nothing_is_lost(straight, images, tmp_path, killed):
    out, _ = straight
    command = [*TORCHRUN, "--nproc-per-node", "2", "--max-restarts", "1"]
    with start(command, images, tmp_path / "run") as process:
        said = process.communicate()[0]
    assert killed.exists()
    assert process.returncode == 0, said
    assert "going on after step" in said
    assert differences(out, tmp_path / "run") < 1e-4


def test_the_frozen_part_is_run_once_and_that_changes_nothing(images, tmp_path, monkeypatch):
    choices = {"size": 32, "epochs": 2, "strategy": "head", "batch_size": 5}
    said = []
    finetune.run(images, tmp_path / "once", say=said.append, **choices)
    assert any("is run once" in line for line in said)
    monkeypatch.setattr(running, "once", lambda model, readers, ranks, say: (model, readers))
    finetune.run(images, tmp_path / "always", say=lambda line: None, **choices)
    assert differences(tmp_path / "once", tmp_path / "always") < 1e-5


def test_a_full_disk_ends_the_run_and_it_goes_on_from_there(straight, images, tmp_path):
    out, _ = straight
    small = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))}
    with start([sys.executable], images, tmp_path / "run", **small) as process:
        said = process.communicate()[0]
    assert process.returncode == 1
    assert "could not be written" in said
    assert "Traceback" not in said
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["plan.json"]  # no half file
    finetune.run(images, tmp_path / "run", resume=True, say=lambda line: None)
    assert differences(out, tmp_path / "run") == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--size", "0"], "size must be above 0, not 0"),
        (["--epochs", "-1"], "epochs must be above 0"),
        (["--strategy", "tail"], "strategy 'tail' is unknown; the first ones are 'head'"),
        (["--backbone", "resnet81"], "the nearest are 'resnet18'"),
        (["--resume"], "no folder of a run"),
    ],
)
def test_a_wrong_choice_is_said_and_nothing_is_made(arguments, says, images, tmp_path, capsys):
    assert main(["finetune", str(images), "--out", str(tmp_path / "run"), *arguments]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_images_that_are_none_are_named_or_left_out(images, tmp_path, capsys):
    dirty = tmp_path / "dirty"
    shutil.copytree(images, dirty)
    (dirty / "food" / "notes.png").write_text("eggs, milk")
    command = ["finetune", str(dirty), "--out", str(tmp_path / "run"), "--size", "32", "--epochs", "1"]
    assert main(command) == 1
    assert "food/notes.png" in (said := capsys.readouterr().err)
    assert "--skip-bad" in said
    with pytest.warns(UserWarning, match="left out"):
        assert main([*command, "--skip-bad"]) == 0


def test_one_class_is_nothing_to_tell(images, tmp_path, capsys):
    shutil.copytree(images / "food", tmp_path / "one" / "food")
    assert main(["finetune", str(tmp_path / "one"), "--out", str(tmp_path / "run")]) == 1
    assert "only one class folder" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(images, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["finetune", str(images), "--out", str(tmp_path / "file" / "run"), "--size", "32"]) == 1
    assert "file" in capsys.readouterr().err


def test_a_run_is_never_overwritten(straight, images, capsys):
    out, _ = straight
    before = (out / "best.pt").read_bytes()
    assert main(["finetune", str(images), "--out", str(out), *FLAGS]) == 1
    assert "has a run already" in capsys.readouterr().err
    assert (out / "best.pt").read_bytes() == before


def test_going_on_with_another_plan_or_other_images_is_refused(straight, images, tmp_path):
    out, _ = straight
    with pytest.raises(ValueError, match="epochs was 3, now 4"):
        finetune.run(images, out, resume=True, epochs=4)
    mine = tmp_path / "images"
    shutil.copytree(images, mine)
    finetune.run(mine, tmp_path / "run", size=32, epochs=1, say=lambda line: None)
    Image.new("RGB", (32, 32), "red").save(mine / "food" / "red.png")
    with pytest.raises(ValueError, match="the images have changed"):
        finetune.run(mine, tmp_path / "run", resume=True, say=lambda line: None)


def test_a_loss_that_is_no_number_ends_the_run(images, tmp_path, capsys):
    command = ["finetune", str(images), "--out", str(tmp_path / "run"), "--size", "32", "--epochs", "2"]
    assert main([*command, "--strategy", "head", "--lr", "1e30", "--batch-size", "5"]) == 1
    assert "a learning rate below 1e+30 (--lr)" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"plan.json"}


def test_the_report_says_the_command_that_makes_the_run_again(straight, images, capsys):
    out, _ = straight
    report = (out / "report.html").read_text()
    plan, _ = rundir.read_plan(out)
    words = shlex.split(rundir.command(plan, out))
    assert escape(rundir.command(plan, out), quote=False) in unescape_quotes(report)
    words[words.index("--epochs") + 1] = "4"
    assert main([*words[1:], "--resume"]) == 1
    assert "another plan: epochs was 3, now 4." in capsys.readouterr().err  # all others are as they were


def unescape_quotes(text: str) -> str:
    return text.replace("&#x27;", "'").replace("&#39;", "'")


def test_predict_says_what_is_on_images_and_which_files_are_none(straight, images, tmp_path, capsys):
    out, _ = straight
    (tmp_path / "notes.txt").write_text("no image")
    file = sorted((images / "food").iterdir())[0]
    assert main(["predict", str(out), str(file), str(tmp_path / "notes.txt"), "--json", "--top", "2"]) == 1
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(good["scores"]) == 2
    assert set(good["scores"]) < set(CLASSES)
    assert "cannot be read" in bad["problem"]
    assert main(["predict", str(out), str(images / "food")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 8


@pytest.mark.parametrize(("out", "says"), [("nowhere", "no folder of a run"), (".", "no folder of a run")])
def test_predict_without_a_run(out, says, tmp_path, capsys):
    assert main(["predict", str(tmp_path / out), "x.png"]) == 1
    assert says in capsys.readouterr().err


def test_a_plan_is_chosen_by_how_many_images_there_are_and_says_why():
    assert choose([20, 20], {"folder": "x"}).strategy == "head"
    assert choose([100, 120], {"folder": "x"}).strategy == "last third"
    plan = choose([900, 800], {"folder": "x"})
    assert (plan.strategy, plan.augment) == ("everything", True)
    assert "850 images per class" in repr(plan)
    given = choose([900], {"folder": "x", "strategy": "head", "augment": None})
    assert (given.strategy, given.augment) == ("head", False)
    assert "strategy" not in given.why
    with pytest.raises(TypeError, match="the nearest is 'epochs'"):
        choose([1], {"folder": "x", "epoch": 3})


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_16", "googlenet", "densenet121"])
def test_each_strategy_trains_its_part_on_every_kind_of_model(name):
    from ftlab import pretrained
    from ftlab.finetune.plan import build_optimizer, freeze_rest

    with torch.device("meta"):
        model = pretrained.load(name, weights=None)
    trained = {}
    for strategy in ("head", "last third", "everything"):
        plan = Plan("x", backbone=name, strategy=strategy)
        freeze_rest(model, plan, 224)
        trained[strategy] = {key for key, p in model.named_parameters() if p.requires_grad}
        rates = {group["lr"] for group in build_optimizer(model, plan).param_groups}
        assert rates == ({plan.lr} if strategy == "head" else {plan.lr, plan.lr * plan.body})
    assert len(trained["head"]) == 2
    assert trained["head"] < trained["last third"] < trained["everything"]
    assert not any(key.startswith("aux") for key in trained["everything"])


def test_an_image_looks_otherwise_in_each_epoch_and_the_same_in_each_run():
    image = Image.effect_noise((40, 40), 80)
    looks = {augmented(image, 0, epoch, 3).tobytes() for epoch in range(5)}
    assert len(looks) == 5
    assert augmented(image, 0, 1, 3).tobytes() == augmented(image, 0, 1, 3).tobytes()


def test_shares_are_all_positions_once():
    positions = order(11, seed=1, epoch=2)
    shares = [Ranks(rank, 3, torch.device("cpu")).share(positions) for rank in range(3)]
    assert sorted(position for share in shares for position in share) == list(range(11))
    assert order(11, 1, 2) == positions != order(11, 1, 3)
