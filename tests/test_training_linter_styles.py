"""Fifteen loops in the styles that people write: nothing is wrong with them, and one slip in one is named."""

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from ftlab.training import check_loop

FOLDER = Path(__file__).parent / "styles"
STYLES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "parts"))

ZERO, STEP, BACKWARD = "optimizer.zero_grad()", "optimizer.step()", "loss.backward()"
NO_GRAD = {"with torch.no_grad():": "if True:"}
OTHER_NAME = {  # the function that was made has another name than where it was written
    "train_step = make_train_step(model, loss_fn, optimizer)": "go = make_train_step(model, loss_fn, optimizer)",
    "batch_losses.append(train_step(x_batch, y_batch))": "batch_losses.append(go(x_batch, y_batch))",
}
# the loop, what stands instead of some of its lines, the slip; the run of a function sees less than its file has
SLIPS = [
    ("wrapper", {f"self.{ZERO}": ""}, "no zero_grad"),
    ("wrapper", {"self.network.train()": "pass"}, "eval left on"),
    ("wrapper", NO_GRAD, "validation without no_grad"),
    ("wrapper", {BACKWARD: f"self.{STEP}", f"self.{STEP}": BACKWARD}, "step before backward"),
    ("wrapper", {"self.network.eval()": "pass"}, "validation in train mode"),
    ("wrapper", {"return loss.item()": "return loss"}, "total keeps graphs"),
    ("trainer", {f"self.{ZERO}": ""}, "no zero_grad"),
    ("trainer", {"self.model.train()": "pass"}, "eval left on"),
    ("trainer", {"@torch.no_grad()": ""}, "validation without no_grad"),
    ("trainer", {f"self.{STEP}": f"self.{STEP}; self.scheduler.step()"}, "scheduler twice"),
    ("closures", {ZERO: ""}, "no zero_grad"),
    ("closures", {**OTHER_NAME, ZERO: ""}, "no zero_grad"),
    ("closures", {"model.train()": "pass"}, "eval left on"),
    ("closures", {"return loss.item()": "return loss"}, "total keeps graphs"),
    ("closures", {STEP: ZERO, ZERO: STEP}, "zero_grad between backward and step"),
    ("accelerated", {ZERO: ""}, "no zero_grad"),
    ("accelerated", {"total_loss += loss.detach().float()": "total_loss += loss"}, "total keeps graphs"),
    ("accelerated", {STEP: "lr_scheduler.step()", "lr_scheduler.step()": STEP}, "scheduler before optimizer"),
    ("accelerated", {"model.eval()": "pass"}, "validation in train mode"),
    ("scaled", {"scaler.unscale_(optimizer)": ""}, "clip before unscale"),
    ("scaled", {"scaler.scale(loss).backward()": BACKWARD}, "loss not scaled"),
    ("scaled", {"scaler.step(optimizer)": STEP}, "step past the scaler"),
    ("scaled", {"scaler.update()": ""}, "no update"),
    ("windows", {"loss = loss / accum_steps": ""}, "accumulation not divided"),
    ("windows", {ZERO: "pass"}, "no zero_grad"),
    ("windows", {BACKWARD: f"{BACKWARD}; {ZERO}"}, "zero_grad between backward and step"),
    ("two_heads", {"opt.zero_grad()": ""}, "no zero_grad"),
    ("two_heads", {"opt.step()": ""}, "no step"),
    ("adversaries", {"D.zero_grad()": ""}, "no zero_grad"),
    ("adversaries", {"G.zero_grad()": ""}, "no zero_grad"),
    ("adversaries", {"optG.step()": ""}, "optimizer never stepped"),
    ("averages", {ZERO: ""}, "no zero_grad"),
    ("averages", {BACKWARD: STEP, STEP: BACKWARD}, "step before backward"),
    ("stopping", {"scheduler.step(valid_loss)": "scheduler.step()"}, "plateau without a metric"),
    ("stopping", {"model.eval()": "pass"}, "validation in train mode"),
    ("cell", {"opt.zero_grad()": ""}, "no zero_grad"),
    ("cell", {"net.eval()": "pass"}, "validation in train mode"),
    ("cell", {"sched.step()": ""}, "scheduler never stepped"),
    ("dictionaries", {"p.grad = None": "pass"}, "no zero_grad"),
    ("dictionaries", NO_GRAD, "total keeps graphs"),
    ("fabric", {ZERO: ""}, "no zero_grad"),
    (
        "fabric",
        {"loss = F.cross_entropy(out, y) / 2": "loss = F.cross_entropy(out, y)"},
        "accumulation not divided",
    ),
    ("passes", {ZERO: ""}, "no zero_grad"),
    ("passes", {'model.train(phase == "train")': "model.eval()"}, "eval left on"),
]
ONLY_READ = [  # what is wrong stands in another method than the one that is run
    ("trainer", {"self.scheduler.step()": ""}, "scheduler never stepped"),
    (
        "trainer",
        {"self.best_state = copy.deepcopy(self.model.state_dict())": "self.best_state = self.model.state_dict()"},
        "best is a live view",
    ),
]
ONLY_SEEN = [  # nothing in the source is wrong by itself
    (
        "adversaries",
        {"errG = bce(D(fake), ones)": "errG = bce(D(fake.detach()), ones)"},
        "step never moves anything",
    ),
]


def changed(loop, lines):
    """Return the source of a loop with other lines; each must be there."""
    found = (FOLDER / f"{loop}.py").read_text().splitlines()
    assert set(lines) <= {line.strip() for line in found}
    return "\n".join(
        line[: len(line) - len(line.lstrip())] + lines.get(line.strip(), line.strip()) for line in found
    )


def run(source, path):
    """Import a source from a file, and watch what its `case` names."""
    path.write_text(source)
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    function, given = module.case()
    return check_loop(function, **given)


@pytest.mark.parametrize("loop", STYLES)
def test_nothing_is_wrong(loop, tmp_path):
    source = changed(loop, {})
    assert check_loop(source).ok, check_loop(source)
    if "def case" in source:
        report = run(source, tmp_path / "right.py")
        assert report.ok, report
        assert report.steps
        assert "ended in" not in report.watched
    assert "right" not in sys.modules


@pytest.mark.parametrize(("loop", "lines", "kind"), SLIPS + ONLY_READ)
def test_a_slip_is_read(loop, lines, kind):
    assert kind in check_loop(changed(loop, lines)).kinds


@pytest.mark.parametrize(("loop", "lines", "kind"), [case for case in SLIPS if case[0] != "cell"] + ONLY_SEEN)
def test_a_slip_is_named_after_a_run(loop, lines, kind, tmp_path):
    assert kind in run(changed(loop, lines), tmp_path / "wrong.py").kinds


def test_what_was_unfrozen_and_has_no_optimizer_is_seen(tmp_path):
    source = (FOLDER / "phases.py").read_text()
    before, _, after = source.rpartition("    optimizer = torch.optim.SGD(")
    without = before + after.partition("\n    )\n")[2]
    assert without.count("torch.optim.SGD") == source.count("torch.optim.SGD") - 1
    report = run(without, tmp_path / "wrong.py")
    assert report.kinds == ["unfrozen without an optimizer"]
    assert "4 tensors" in report.slips[0].evidence
