"""A pytest plugin that makes notebooks fail where nbval alone lets them pass.

nbval compares what a cell shows with what is stored. It does not see:

- a magic that does not exist: IPython only prints "UsageError", and the rest of the cell does not run;
- a shell command that fails: Python never hears of its exit status;
- an exception in a thread;
- a code cell that was stored without having been run: it has no outputs to compare;
- a failed check that only displays. The root `conftest.py` sets `FTLAB_CI=1`, in which checks raise;
- a kernel that died: nbval waits for the whole cell timeout;
- that a cell ran on the ruins of an earlier one: after a failure it runs the later cells and passes them.

`tests/test_guard.py` holds a broken notebook for each of them.
"""

import ast
import inspect
import time
from queue import Empty

import nbval.plugin
import pytest
from jupyter_client.connect import LocalPortCache
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell

from tests.ports import free_port

POLL = 0.5  # seconds between two looks at whether the kernel is alive
PATIENCE = 240  # seconds for an answer of the kernel between two cells, and for an output after the cell's end
LINGER = 10.0  # seconds that threads get to finish, or fail, after the last cell


def _watch() -> None:  # runs inside the kernel, from its source: it may only use what it imports
    import threading
    import time

    from IPython import get_ipython

    shell, before, lost = get_ipython(), set(threading.enumerate()), []
    show = threading.excepthook

    def remember(args) -> None:
        lost.append(f"{args.exc_type.__name__}: {args.exc_value} (in thread {args.thread.name!r})")
        show(args)

    def refuse(command, *_, **__) -> None:
        raise RuntimeError(
            f"a lesson runs no shell commands, here: {command!r}. Use Python, or subprocess.run(..., check=True)"
        )

    def report(linger: float) -> list[str]:
        end = time.monotonic() + linger
        for thread in set(threading.enumerate()) - before:
            if not type(thread).__module__.startswith("tqdm"):  # its monitor never ends, and is idle
                thread.join(max(0.0, end - time.monotonic()))
        found, lost[:] = lost[:], []
        return found

    threading.excepthook = remember
    shell.system = shell.getoutput = refuse
    shell.guard_report = report


class GuardedKernel(RunningKernel):
    """A kernel that notices its own death and remembers what nbval drops."""

    status = "ok"  # of the last cell that was executed

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._ask(f"{inspect.getsource(_watch)}\n_watch()\ndel _watch")
        if self.status != "ok":
            raise RuntimeError("the guard could not be set up in the kernel")

    def get_message(self, stream, timeout=None):
        """Wait as nbval does, but not longer than the kernel lives."""
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            try:
                message = super().get_message(stream, timeout=max(0.0, min(POLL, end - time.monotonic())))
            except Empty:
                if not self.is_alive():
                    self.kc.stop_channels()
                    pytest.fail("the kernel died in this cell", pytrace=False)
                if time.monotonic() >= end:
                    raise
            else:
                if message["msg_type"] == "execute_reply":
                    self.reply, self.status = message["content"], message["content"]["status"]
                return message

    def await_reply(self, msg_id, timeout=None):
        """Wait as nbval does, but longer: it gives a kernel that has just begun ten seconds."""
        super().await_reply(msg_id, timeout=timeout and max(timeout, PATIENCE))

    def lost_exceptions(self, linger: float) -> list[str]:
        """Return the exceptions that ended a thread since the last call, after waiting for running threads."""
        self._ask("", lost=f"get_ipython().guard_report({linger})")
        return ast.literal_eval(self.reply["user_expressions"]["lost"]["data"]["text/plain"])

    def _ask(self, code: str, **expressions: str) -> None:
        message = self.kc.execute(code, silent=True, store_history=False, user_expressions=expressions)
        self.await_reply(message, timeout=PATIENCE)
        self.await_idle(message, timeout=PATIENCE)


def _stderr(cell: IPyNbCell) -> str:
    shown = cell.test_outputs or []
    return "".join(out.text for out in shown if out.output_type == "stream" and out.name == "stderr")


def _refuse_unrun(cell: IPyNbCell) -> None:
    if cell.cell.source.strip() and cell.cell.execution_count is None:
        cell.raise_cell_error("This cell was stored without having been run, so there is nothing to compare")


def _refuse_silent_failures(cell: IPyNbCell) -> None:
    kernel = cell.parent.kernel
    if kernel.status != "ok" and not cell.options["check_exception"]:
        cell.raise_cell_error(f"The cell failed without showing an exception. On stderr: {_stderr(cell)}")
    is_last = cell is cell.parent.guard_last
    if lost := kernel.lost_exceptions(LINGER if is_last else 0.0):
        cell.raise_cell_error("A thread ended with an exception: " + "; ".join(lost))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Refuse a notebook cell that nbval would pass."""
    if not isinstance(item, IPyNbCell):
        return (yield)
    notebook = item.parent
    if broken := getattr(notebook, "guard_broken", None):
        pytest.skip(f"{broken} of this notebook failed before")
    try:
        _refuse_unrun(item)
        result = yield
        _refuse_silent_failures(item)
    except pytest.skip.Exception:
        raise
    except BaseException:
        notebook.guard_broken = item.name
        raise
    return result


def pytest_collection_modifyitems(items) -> None:
    """Remember the last cell of each notebook: after it, threads get time to fail. Give outputs time to come."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.parent.guard_last = item
            item.output_timeout = PATIENCE  # nbval's five seconds are too short for a busy machine


def pytest_configure(config) -> None:
    """Give nbval the guarded kernel, kernels safe ports, and let nbval find its sanitize file from any folder."""
    nbval.plugin.RunningKernel = GuardedKernel
    LocalPortCache.find_available_port = lambda cache, ip: free_port(ip)
    if sanitize := config.option.nbval_sanitize_with:
        config.option.nbval_sanitize_with = str(config.rootpath / sanitize)
