"""Real processes: their results, their failures, and that none of them stays."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from jupyter_client.manager import KernelManager
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ftlab.multi_gpu import device, launch, preflight, processes
from ftlab.multi_gpu.failures import is_whole_stack
from ftlab.multi_gpu.launcher import _packed

ROOT = Path(__file__).parents[1]
MARK = "FTLAB_TEST_FAMILY"


def family(mark):
    """Return every process that was started with this mark, and every Python that this one started.

    A launch of another test, which runs beside this one, has another mark.
    """
    ours, found = set(psutil.Process().children(recursive=True)), set()
    for process in {*ours, *psutil.process_iter()}:
        with suppress(
            psutil.NoSuchProcess, psutil.AccessDenied
        ):  # they come and go, also while they are looked at
            # Python only: a browser that other tests use starts and ends processes as it likes.
            if (process in ours and "python" in process.name()) or process.environ().get(MARK) == mark:
                found.add(process)
    return found


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)  # what a test starts inherits it
    before = family(mark)
    yield
    end = time.monotonic() + 120
    while (left := family(mark) - before) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


def tell(offset):
    """Use the process group, print, and return something of each kind."""
    random = torch.rand(1)
    total = torch.tensor([float(dist.get_rank())])
    dist.all_reduce(total)
    print("first line\nsecond", "line")
    print(f"to stderr from {dist.get_rank()}", file=sys.stderr)
    print("half\rwhole", end="")
    model = DistributedDataParallel(nn.Linear(2, 1).to(device()))  # stays alive: gloo must not mind
    model(torch.ones(3, 2, device=device())).sum().backward()
    return {
        "rank": dist.get_rank() + offset,
        "total": total,
        "device": str(device()),
        "environment": {name: os.environ[name] for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS")},
        "port": int(os.environ["MASTER_PORT"]),
        "random": random,
        "input": sys.stdin.read(),
        "pid": os.getpid(),
    }


def test_every_rank_gives_its_result_and_its_output(capsys):
    results = launch(tell, 10, nproc=3, device="cpu")
    assert [result["rank"] for result in results] == [10, 11, 12]
    assert all(result["total"].item() == 3 for result in results)
    assert all(result["device"] == "cpu" for result in results)
    assert results[0]["environment"] == {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "OMP_NUM_THREADS": "1"}
    seeded = [torch.rand(1, generator=torch.Generator().manual_seed(rank)) for rank in range(3)]
    assert [result["random"] for result in results] == seeded
    assert len({result["pid"] for result in results} | {os.getpid()}) == 4
    assert {result["input"] for result in results} == {""}
    lines = capsys.readouterr().out.splitlines()
    for rank in range(3):
        mine = [line.removeprefix(f"[rank {rank}] ") for line in lines if line.startswith(f"[rank {rank}] ")]
        assert sorted(mine) == ["first line", "second line", f"to stderr from {rank}", "whole"]
        assert mine.index("first line") < mine.index("second line") < mine.index("whole")
    assert len(lines) == 12


def test_an_error_names_the_rank_and_the_line_and_ends_the_others():
    def train(steps):
        if dist.get_rank() == 1:
            raise ValueError(f"no images for {steps} steps")
        dist.all_reduce(torch.ones(1))  # would wait for ever

    with pytest.raises(RuntimeError) as caught:
        launch(train, 7, device="cpu")
    lines = str(caught.value).splitlines()
    assert lines[0] == "rank 1 raised ValueError: no images for 7 steps"
    assert lines[1].startswith("  line ")
    assert lines[1].endswith('in train: raise ValueError(f"no images for {steps} steps")')
    assert len(lines) == 3
    assert lines[2].startswith(("rank 0 failed afterwards", "the other rank was ended"))


def test_the_same_error_in_all_ranks_is_told_once():
    with pytest.raises(RuntimeError) as caught:
        launch(dist.init_process_group)
    text = str(caught.value)
    assert text.count("raised ValueError: trying to initialize the default process group twice!") == 1
    assert "launch has called it already: leave it out, or say join=False" in text
    assert "raised the same" in text


def test_a_rank_that_is_killed_is_told_with_the_reason(monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 120.0)  # the agent notes the exit code, and goes by itself
    with pytest.raises(RuntimeError, match=r"rank 0 left with exit code 3, without returning"):
        launch(os._exit, 3, nproc=1)

    def die():
        if dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.all_reduce(torch.ones(1))

    with pytest.raises(
        RuntimeError, match=r"^rank 1 (was killed \(SIGKILL\)|vanished: it was killed).* memory r[au]n"
    ):
        launch(die, device="cpu")


def test_ranks_that_all_leave_without_a_word_are_not_waited_for():
    """Their exit code is 0: PyTorch's agent takes that for a success, and waits for what they return."""
    with pytest.raises(RuntimeError, match=r"^rank 0 vanished.*\nrank 1 vanished"):
        launch(os._exit, 0, device="cpu", timeout=600)


def test_a_thread_that_goes_on_does_not_keep_the_results():
    def work():
        threading.Thread(target=threading.Event().wait).start()
        return dist.get_rank()

    assert launch(work, device="cpu", timeout=600) == [0, 1]


def test_a_result_that_cannot_travel_is_named():
    with pytest.raises(RuntimeError, match=r"returned a lock that cannot be sent back .* return plain numbers"):
        launch(threading.Lock, nproc=1, device="cpu")


def test_a_rank_that_hangs_is_ended_and_explained(tmp_path, monkeypatch):
    waits, have_begun = tmp_path / "rank 0 waits", processes.have_begun

    def begun(folder, nproc):  # the two seconds begin when all have got where the text says that they are
        return have_begun(folder, nproc) and waits.exists() and (folder / "1.result").exists()

    monkeypatch.setattr(processes, "have_begun", begun)
    monkeypatch.setattr(processes, "ANSWER", 120.0)

    def wait():
        subprocess.Popen(["sleep", "1000"])  # what a rank started ends with it
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if dist.get_rank() == 0:
            waits.touch()
            dist.all_reduce(torch.ones(1))

    with pytest.raises(TimeoutError) as caught:
        launch(wait, timeout=2, device="cpu")
    first, rank_0, rank_1 = str(caught.value).splitlines()
    assert first == "the 2 processes did not end within 2 seconds, and were ended"
    assert rank_0.endswith("in wait: dist.all_reduce(torch.ones(1))")
    assert rank_1 == "rank 1 had returned, and waited for the others to do so"


def test_a_stack_is_whole_when_its_outermost_place_is_there():
    stack = (
        'Stack (most recent call first):\n  File "a.py", line 3 in wait\n  File "agent.py", line 9 in <module>\n'
    )
    assert is_whole_stack(stack)
    assert is_whole_stack(stack.replace("<module>", "_run_module_as_main"))
    assert is_whole_stack(100 * '  File "a.py", line 3 in deeper\n' + "  ...\n")
    assert not any(is_whole_stack(stack[:end]) for end in range(len(stack)))


def test_stop_ends_a_launch_in_a_thread():
    stop, ended = threading.Event(), []

    def run():
        try:
            launch(time.sleep, 1000, nproc=1, should_stop=stop.is_set)
        except KeyboardInterrupt as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.2)
    stop.set()
    thread.join(240)
    assert len(ended) == 1


SCRIPTS = """
import os, sys, types
from pathlib import Path
from ftlab.multi_gpu import agent
agent.sys = types.SimpleNamespace(platform="darwin", executable=sys.executable)
os._exit(agent.main(Path(sys.argv[1]), 2, "cpu", True))
"""


def test_ranks_that_are_started_as_scripts(tmp_path):
    """As on macOS, and with a GPU for each rank: there a fork would not do."""
    (tmp_path / "call.pickle").write_bytes(_packed(tell, (10,)))
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPTS, str(tmp_path)],
        stdin=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as agent:
        assert agent.wait(600) == 0
    results = [pickle.loads((tmp_path / f"{rank}.result").read_bytes()) for rank in range(2)]
    assert [result["rank"] for result in results] == [10, 11]
    assert results[0]["pid"] != results[1]["pid"]


def test_without_process_groups_it_is_refused(monkeypatch):
    monkeypatch.setattr("ftlab.multi_gpu.processes.CAN_END", False)
    with pytest.raises(OSError, match="use WSL, or torchrun in a terminal"):
        launch(print)
    assert not preflight().ways[-1].works
    assert "use WSL" in preflight().advice


def test_what_cannot_travel_is_named():
    lock = threading.Lock()

    def work():
        return lock

    with pytest.raises(
        TypeError, match=r"'work' uses 'lock', which is of type lock and cannot .* make it inside work"
    ):
        launch(work)
    with pytest.raises(TypeError, match=r"argument 2 of print is of type generator"):
        launch(print, 1, (number for number in [1]))


def test_what_is_no_call_is_refused():
    with pytest.raises(TypeError, match=r"write launch\(train, 1, 2\), not launch\(train\(1, 2\)\)"):
        launch(3)
    with pytest.raises(ValueError, match="not 0"):
        launch(print, nproc=0)
    with pytest.raises(RuntimeError, match="this process is no rank of a launch"):
        device()


def test_a_function_of_a_module_that_others_cannot_import_travels_by_value(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("def two():\n    return 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    import beside

    by_name = _packed(beside.two, ())
    monkeypatch.undo()
    sys.path_importer_cache.clear()
    by_value = _packed(beside.two, ())
    assert len(by_value) > 2 * len(by_name)
    del sys.modules["beside"]


CELLS = """
import asyncio, time, torch, torch.distributed as dist
from ftlab.multi_gpu import launch
factor = torch.tensor(3.0)
---
class Box:
    def __init__(self, value):
        self.value = value
---
torch.set_num_threads(2)
x = torch.randn(500, 500) @ torch.randn(500, 500)  # the thread pool is in use
---
def boxed(x):
    return Box(factor * x + dist.get_rank())
---
await asyncio.sleep(0)
boxes = launch(boxed, 2)
assert [box.value.item() for box in boxes] == [6.0, 7.0]
assert type(boxes[0]) is Box
---
def broken():
    return 1 / dist.get_rank()
"""
ASLEEP = """
def sleep():
    print("asleep")
    time.sleep(1000)

launch(sleep)
"""


@pytest.fixture
def kernel():
    manager = KernelManager()
    manager.start_kernel(cwd=str(ROOT))
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=240)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def until(client, wanted):
    """Return the first output that contains a text."""
    while True:
        message = client.get_iopub_msg(timeout=600)
        text = message["content"].get("text", "")
        if wanted in text:
            return text


def test_a_notebook_s_functions_classes_and_stop_button(kernel):
    manager, client = kernel
    for cell in CELLS.split("---"):
        reply = client.execute_interactive(cell, timeout=600, output_hook=lambda message: None)
        assert reply["content"]["status"] == "ok", reply["content"]
    reply = client.execute_interactive("launch(broken)", timeout=600, output_hook=lambda message: None)
    told = reply["content"]["evalue"].splitlines()
    assert told[:2] == [
        "rank 0 raised ZeroDivisionError: division by zero",
        "  line 2, in broken: return 1 / dist.get_rank()",
    ]

    message = client.execute(ASLEEP)
    until(client, "[rank 0] asleep")
    manager.interrupt_kernel()  # as the stop button does
    while (reply := client.get_shell_msg(timeout=600))["parent_header"]["msg_id"] != message:
        pass
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    children = psutil.Process(manager.provisioner.process.pid).children(recursive=True)
    assert not children

    client.execute(ASLEEP)
    until(client, "[rank 0] asleep")
    assert len(psutil.Process(manager.provisioner.process.pid).children(recursive=True)) == 3
    manager.provisioner.process.kill()  # and nothing is left: the fixture looks
