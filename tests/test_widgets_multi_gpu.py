"""RanksPanel: what it shows is what the processes then do."""

import itertools
import os
import re
import subprocess
import sys

import pytest

from ftlab.multi_gpu import processes
from ftlab.multi_gpu.plan import BATCH_NORMS, SAMPLERS, WRAPPERS, RanksPlan
from ftlab.widgets.multi_gpu import HANGS, TIMEOUT, RanksPanel

LINE = re.compile(r"epoch (\d): images \[(.*?)\], loss [\d.]+")


def gone_through(lines, processes):
    """Return what the ranks printed: for each epoch, rank and step the images."""
    found = [[[] for _ in range(processes)] for _ in range(2)]
    for rank, line in lines:
        if match := LINE.fullmatch(line):
            found[int(match[1])][rank].append([int(number) for number in match[2].split(",")])
    return found


@pytest.fixture
def panel():
    panel = RanksPanel()
    yield panel
    panel.close()


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_run_does_what_is_shown(panel, wrapper):
    panel.wrapper.value, panel.images.value = wrapper, 7
    panel.sampler.value = {"none": "each image once", "fully_shard": SAMPLERS[1]}.get(wrapper, SAMPLERS[0])
    panel.job.start()
    plan = panel.plan
    assert gone_through(panel.lines, plan.processes) == plan.to_dict()["batches"]
    assert (0, f"the first name in the file: {plan.prefix}0.weight") in panel.lines
    assert f"[rank 0] the first name in the file: {plan.prefix}0.weight" in panel.log.value
    assert f"<code>{plan.prefix}0.weight</code>" in panel.notes.value
    assert "done" in repr(panel.job)
    panel.images.value = 6
    assert panel.log.value == ""  # it belonged to other choices


def test_the_code_runs_by_torchrun(panel, tmp_path):
    (tmp_path / "train.py").write_text(panel.code())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, env=environment)
    assert ran.returncode == 0, ran.stderr
    images = sorted(int(n) for _, part in LINE.findall(ran.stdout) for n in part.split(","))
    assert images == sorted(
        image for epoch in range(2) for rank in panel.plan.batches(epoch) for b in rank for image in b
    )
    assert "the first name in the file: module.0.weight" in ran.stdout


def test_what_hangs_is_said_and_then_shown(panel, monkeypatch):
    have_begun = processes.have_begun

    def begun(folder, nproc):  # the seconds begin when rank 1 has made its four steps, and rank 0 as many
        return have_begun(folder, nproc) and len(panel.lines) == 8

    monkeypatch.setattr(processes, "have_begun", begun)
    monkeypatch.setattr(processes, "ANSWER", 120.0)
    monkeypatch.setattr("ftlab.widgets.multi_gpu.HANGS", 3)
    panel.sampler.value, panel.images.value, panel.batch_size.value = "each image once", 5, 1
    assert repr(panel).endswith("it hangs")
    with pytest.raises(TimeoutError, match=r"rank 0 was in line \d+, in main: (loss.backward|.*model\(images)"):
        panel.job.start()
    assert "rank 1" in panel.job.text.value


def test_only_what_hangs_is_ended_soon(panel, monkeypatch):
    given = []
    monkeypatch.setattr("ftlab.widgets.multi_gpu.launch", lambda *args, timeout, **more: given.append(timeout))
    for sampler in ("each image once", SAMPLERS[0]):
        panel.sampler.value, panel.images.value, panel.batch_size.value = sampler, 5, 1
        panel.job.start()
    assert given == [HANGS, TIMEOUT]
    assert HANGS < TIMEOUT


def test_the_notes_name_what_is_wrong():
    def notes(**choices):
        return " | ".join(RanksPlan(**choices).notes())

    assert "2 images of an epoch are gone through more than once" in notes(ranks=4, images=10)
    assert "the second epoch has the order of the first" in notes(sampler=SAMPLERS[1])
    assert "the gradients meet nowhere" in notes(wrapper="none")
    assert "every rank does the same work" in notes(sampler="none")
    assert "a full step sees 8 images" in notes(ranks=4, batch_size=2)
    assert "on the CPU PyTorch refuses" in notes(batch_norm="SyncBatchNorm")
    assert "part of the first GPU" in notes(wrapper="DataParallel")
    assert "unequal numbers of images" in notes(images=7, sampler="each image once")
    assert "hangs" not in notes(images=7, sampler="each image once")
    assert "hangs" not in notes(images=5, batch_size=1, sampler="each image once", wrapper="none")


def test_every_choice_has_a_plan_and_a_script(panel):
    for wrapper, sampler, norm in itertools.product(WRAPPERS, SAMPLERS, BATCH_NORMS):
        panel.wrapper.value, panel.sampler.value, panel.batch_norm.value = wrapper, sampler, norm
        assert panel.failure is None
        compile(panel.code(), "<panel>", "exec")
        assert "ftlab" not in panel.code()
        assert panel.plan.sampler in repr(panel)


def test_choices_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"wrapper is one of 'DistributedDataParallel', .* not 'DDP'"):
        RanksPlan(wrapper="DDP")
    with pytest.raises(ValueError, match="1 or more"):
        RanksPlan(ranks=0)


def test_the_twin_has_the_shares_and_the_code(panel):
    html = panel.to_html()
    assert "rank 1" in html
    assert "DistributedDataParallel(model)" in html
    assert "averages the gradients over the ranks" in html
