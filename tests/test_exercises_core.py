"""The frame around an exercise: three outcomes, limits, no trace, and sentences instead of tracebacks."""

import _thread
import contextlib
import copy
import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
import torch
from torch import nn

from ftlab import runner
from ftlab.exercises.behaviour import as_names, below, expect_moves, held, moved, same_model, slip, train
from ftlab.exercises.core import CheckFailed, Exercise, Feedback, Outcome, Wrong, all_exercises, exercise
from ftlab.exercises.feedback import Code, Prose
from ftlab.exercises.models import SmallResNet, small_mobilenet, small_vit


def check_doubled(answer):
    """Three numbers, doubled."""
    for number in (1, 5, 7):
        value = answer(number)
        if value != 2 * number:
            raise Wrong(f"For `number={number}` it gave `{value}`.", ask="What is <b>double</b>?")


@exercise(check=check_doubled, hints=["Look at the name.", "Use `2 *`."], remember="Twice is twice.", seconds=120)
def double(number: int) -> int:
    """Return the double of `number`."""
    return 2 * number


def _off_by_one(number):
    # of all things
    result = number + 1
    return result  # noqa: RET504


@exercise(check=check_doubled, hints=["one", "two"], broken=_off_by_one)
def repaired(number: int) -> int:
    """Repair: return the double."""
    return 2 * number


def check_prediction(answer):
    """The prediction."""
    if as_names(answer(), {"a", "b"}) != {"a"}:
        raise Wrong("It is another one.", ask="Which?")


@exercise(check=check_prediction, hints=["one", "two"])
def predicted() -> set[str]:
    """Predict: which of "a" and "b"?"""
    return {"a"}


def check_changed(answer):
    """The weight of a small model."""
    model = nn.Linear(1, 1)
    answer(model)
    if model.weight.requires_grad:
        raise Wrong("The weight still learns.", ask="Why?")


@exercise(check=check_changed, hints=["one", "two"], seconds=120)
def change(model: nn.Module) -> None:
    """Freeze `model`."""
    model.requires_grad_(False)


hasty = copy.copy(double)  # for answers without an end; the others may take their time on a busy machine
hasty.seconds = 0.5


# --- three outcomes


def test_a_right_answer_passes_and_is_told_what_was_checked():
    feedback = double.check(lambda number: number + number)
    assert feedback.outcome is Outcome.PASSED
    assert feedback.passed
    assert feedback.checked == "Three numbers, doubled."
    assert feedback.ask == "Twice is twice."


def test_a_wrong_answer_displays_where_the_course_is_taught(monkeypatch):
    monkeypatch.delenv("FTLAB_CI")
    feedback = double.check(lambda number: 3)
    assert feedback.outcome is Outcome.WRONG
    assert feedback.message == "For `number=1` it gave `3`."


def test_a_wrong_answer_raises_where_the_course_is_tested(monkeypatch):
    monkeypatch.setenv("FTLAB_CI", "1")
    with pytest.raises(CheckFailed, match=r"For `number=1` it gave `3`"):
        double.check(lambda number: 3)
    assert double.judge(lambda number: 3).outcome is Outcome.WRONG


def never_started(number):
    raise NotImplementedError


def started_in_a_helper(number):
    return never_started(number)


@pytest.mark.parametrize("answer", [None, ..., never_started, started_in_a_helper, lambda number: ..., double])
def test_not_tried_is_not_wrong_and_never_raises(answer, monkeypatch):
    monkeypatch.setenv("FTLAB_CI", "1")
    feedback = double.check(answer)
    assert feedback.outcome is Outcome.NOT_TRIED
    assert not feedback.checked


def test_an_error_of_torch_named_not_implemented_is_wrong():
    feedback = double.judge(lambda number: nn.Module()(number))
    assert feedback.outcome is Outcome.WRONG
    assert "missing the required" in feedback.message


def test_a_broken_starter_is_not_tried_whatever_its_blanks_and_comments():
    names = {}
    exec(repaired.starter.replace("of all things", "I wonder") + "\n\n", names)
    assert repaired.judge(names["repaired"]).outcome is Outcome.NOT_TRIED
    exec(repaired.starter.replace("+ 1", "+ 2"), names)
    assert repaired.judge(names["repaired"]).outcome is Outcome.WRONG
    exec(repaired.starter.replace("+ 1", "+ 1.0"), names)
    assert repaired.judge(names["repaired"]).outcome is Outcome.WRONG


def test_a_prediction_may_be_handed_over_itself():
    assert predicted.judge({"a"}).passed
    assert predicted.judge(lambda: ["a"]).passed
    assert predicted.judge({"b"}).outcome is Outcome.WRONG
    assert "`str`" in predicted.judge("a").message
    assert "`c`" in predicted.judge({"c"}).message


# --- what stands in the notebook


def test_kind_and_starter_follow_from_the_function():
    assert [e.kind for e in (double, repaired, predicted)] == ["write", "repair", "predict"]
    head = 'def double(number: int) -> int:\n    """Return the double of `number`."""'
    assert double.starter == f"{head}\n    raise NotImplementedError"
    assert double.solution() == f"{head}\n    return 2 * number"
    assert predicted.starter.endswith("\n    return ...")
    assert repaired.starter.splitlines()[2:4] == ["    # of all things", "    result = number + 1"]
    assert double.task == double.__doc__ == "Return the double of `number`."


def test_hints_are_a_ladder():
    ladder = Exercise(double.function, check=check_doubled, hints=["Look.", "Use `<2>`."])
    assert ladder.hint() == "Hint 1 of 2: Look."
    assert ladder.hint().startswith("Hint 2 of 2: Use `<2>`. That was the last hint")
    assert ladder.hint().startswith("Hint 2 of 2")
    assert ladder.hint(1) == "Hint 1 of 2: Look."
    assert "<code>&lt;2&gt;</code>" in ladder.hint(2)._repr_html_()
    with pytest.raises(IndexError, match="double has no hint 3; it has hints 1 to 2"):
        ladder.hint(3)


def test_declared_exercises_are_found_once():
    found = all_exercises()
    assert len({id(e) for e in found}) == len(found)
    assert double not in found


# --- sentences instead of tracebacks


def raises_in_line_3(number):
    numbers = [number]
    return numbers[7]


def raises_in_a_comprehension(number):
    return [{}["key"] for _ in range(number)]


def quits(number):
    sys.exit(3)


def yields(model):
    yield model


def divides_later(number):
    class Odd:
        def __ne__(self, other):
            return 1 / 0

    return Odd()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (raises_in_line_3, "It raised `IndexError: list index out of range` in line 3 of `raises_in_line_3`"),
        (raises_in_line_3, "(`return numbers[7]`)"),
        (raises_in_a_comprehension, "It raised `KeyError: 'key'` in line 2 of `raises_in_a_comprehension`"),
        (quits, "It raised `SystemExit: 3`"),
        (divides_later, "After your answer the check could not go on: `ZeroDivisionError"),
        (lambda: 3, "It is called as `double(number)`, but yours is `<lambda>()`"),
        (lambda number, factor: 3, "missing a required argument: 'factor'"),
        (lambda number: None, "It gave back `None`."),
        (6, "You handed over the result of a call, of type `int`. Hand over the function itself"),
        (nn.Linear(1, 1), "You handed over the result of a call, of type `Linear`."),
    ],
)
def test_what_goes_wrong_becomes_a_sentence(answer, says):
    feedback = double.judge(answer)
    assert feedback.outcome is Outcome.WRONG
    assert says in feedback.message
    assert feedback.ask
    assert "Traceback" not in repr(feedback)
    assert "ftlab" not in feedback.message.replace("test_exercises_core", "")


def test_what_was_not_checked_is_not_said_to_be():
    assert double.judge(raises_in_line_3).checked == "Three numbers, doubled."
    for answer in (6, lambda: 3, None):
        assert double.judge(answer).checked == ""


def test_a_builtin_that_hides_its_signature_is_tried():
    assert double.judge(dict).message.startswith("It raised `TypeError: 'int' object is not iterable`")


def test_a_generator_where_something_should_happen():
    assert "yield" in change.judge(yields).message


def test_an_endless_error_text_is_shortened():
    def shouts(number):
        raise ValueError("no " * 10_000)

    assert len(double.judge(shouts).message) < 500


def test_prints_are_shown_shortened_and_not_on_the_screen(capsys):
    def chatty(number):
        print("<hello>")
        print("x" * 10_000, file=sys.stderr)
        return 2 * number

    feedback = double.judge(chatty)
    assert feedback.passed
    assert capsys.readouterr() == ("", "")
    assert feedback.printed.startswith("<hello>")
    assert "more characters" in feedback.printed
    assert len(feedback.printed) < 2500
    assert "&lt;hello&gt;" in feedback._repr_html_()


def test_a_warning_is_no_error_whatever_the_filters_outside():
    def warns(number):
        warnings.warn("beware", stacklevel=1)
        return 2 * number

    with pytest.warns(UserWarning, match="beware"):
        assert double.judge(warns).passed


def test_what_other_threads_print_is_not_taken(capsys):
    def wait(number):
        other = threading.Thread(target=print, args=("from elsewhere",))
        other.start()
        other.join()
        return 2 * number

    assert double.judge(wait).printed == ""
    assert "from elsewhere" in capsys.readouterr().out


# --- how it looks


def test_everything_shown_is_escaped():
    evil = "<script>alert('`x`')</script>"
    html = Feedback(evil, Outcome.WRONG, evil, ask=evil, checked=evil, printed=evil)._repr_html_()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 5


@pytest.mark.parametrize("outcome", Outcome)
def test_the_outcome_is_said_in_words_and_signs_not_by_colour_alone(outcome):
    feedback = Feedback("double", outcome, "So it is.")
    for text in (repr(feedback), feedback._repr_html_()):
        assert outcome.value in text
        assert outcome.sign in text
    assert len({o.sign for o in Outcome}) == 3
    assert "background" not in feedback._repr_html_()  # the text stays that of the light or the dark theme
    assert "color: inherit" in feedback._repr_html_()


def test_feedback_for_a_program():
    as_dict = double.judge(lambda number: 3).to_dict()
    assert json.loads(json.dumps(as_dict)) == as_dict
    assert as_dict["outcome"] == "WRONG"


# --- limits


def test_a_loop_without_end_is_ended(monkeypatch):
    monkeypatch.setattr(runner, "GRACE", 120.0)  # a busy machine may take its time

    def forever(number):
        while True:
            print("round")

    feedback = hasty.judge(forever)
    assert feedback.outcome is Outcome.WRONG
    assert feedback.message == "It did not end within 0.5 seconds."
    assert feedback.checked == ""


def test_a_loop_that_catches_every_exception_is_ended(monkeypatch):
    def stubborn(number):
        while True:
            with contextlib.suppress(Exception):
                sum(range(1000))

    monkeypatch.setattr(runner, "GRACE", 120.0)  # a busy machine may take its time
    assert hasty.judge(stubborn).message == "It did not end within 0.5 seconds."


def dies_slowly(callback):
    """Let an object die whose weak reference calls `callback`; an error in there is caught by Python itself."""
    mortal = set()
    watched = weakref.ref(mortal, callback)
    del mortal
    return watched


def test_the_end_of_an_answer_is_no_news_where_python_catches_it_itself(monkeypatch):
    swallowed = []

    def forever():
        while not swallowed:
            dies_slowly(until_stopped)
        while True:
            pass

    def until_stopped(reference):
        try:
            while True:
                pass
        except runner.Stopped:
            swallowed.append(reference)
            raise

    heard = []
    monkeypatch.setattr(sys, "unraisablehook", hook := heard.append)
    monkeypatch.setattr(runner, "GRACE", 120.0)
    run = runner.run(forever, seconds=0.2)
    assert swallowed
    assert not heard
    assert (run.stopped, run.alive, run.printed) == ("time", False, "")
    assert sys.unraisablehook is hook


def test_the_end_of_an_answer_is_no_news_at_the_end_of_its_thread(monkeypatch):
    def late():
        monkeypatch.setattr(torch, "set_num_threads", forever)  # what the thread calls after the answer

    def forever(number):
        while threading.current_thread() is not threading.main_thread():
            pass

    heard = []
    monkeypatch.setattr(threading, "excepthook", hook := heard.append)
    monkeypatch.setattr(runner, "GRACE", 120.0)
    run = runner.run(late, seconds=0.2)
    assert (run.stopped, run.alive) == ("time", False)
    assert not heard
    assert threading.excepthook is hook


def test_one_that_tidies_up_is_not_told_again_at_once(monkeypatch):
    monkeypatch.setattr(runner, "GRACE", 120.0)
    monkeypatch.setattr(runner, "AGAIN", 100.0)
    told, tidied = [], []

    def forever():
        try:
            while True:
                pass
        except runner.Stopped:
            told.append(1)
            end = time.monotonic() + 5 * runner.POLL
            while time.monotonic() < end:
                pass
            tidied.append(1)
            raise

    assert runner.run(forever, seconds=0.1).stopped == "time"
    assert (told, tidied) == ([1], [1])


def test_the_time_to_end_does_not_count_while_it_waits_for_a_processor(monkeypatch):
    starving, tidying = iter(range(0, 10**6, 100)), []  # seconds
    monkeypatch.setattr(runner, "waited", lambda thread: next(starving) if tidying else 0.0)
    monkeypatch.setattr(runner, "GRACE", 5 * runner.POLL)

    def slow():
        try:
            while True:
                pass
        finally:
            tidying.append(1)
            time.sleep(20 * runner.POLL)

    run = runner.run(slow, seconds=0.1)
    assert (run.stopped, run.alive) == ("time", False)


def test_the_end_of_an_answer_leaves_no_lock_behind():
    """A `Stopped` may come at any Python instruction, also right after a lock was taken."""

    def stopped_with_a_lock(frame, event, arg):
        if event == "return" and frame.f_code is threading.Condition.__enter__.__code__:
            raise runner.Stopped
        return stopped_with_a_lock

    run = runner.run(lambda: sys.settrace(stopped_with_a_lock), seconds=120)
    assert (run.stopped, run.alive) == ("", False)


def test_an_error_that_python_catches_itself_is_still_told(monkeypatch):
    def fails(reference):
        raise ValueError("in a callback")

    heard = []
    monkeypatch.setattr(sys, "unraisablehook", lambda caught: heard.append(caught.exc_type))
    runner.run(lambda: dies_slowly(fails))
    assert heard == [ValueError]


def test_the_time_in_which_it_waits_for_a_processor_does_not_count(monkeypatch):
    monkeypatch.setattr(runner, "waited", lambda thread: 1000.0)
    assert runner.run(lambda: time.sleep(0.5), seconds=0.1).stopped == ""
    monkeypatch.setattr(runner, "waited", lambda thread: 0.0)
    assert runner.run(lambda: time.sleep(0.5), seconds=0.1).stopped == "time"


@pytest.mark.skipif(not runner.waited(threading.main_thread()), reason="this system does not tell")
def test_a_thread_that_another_process_keeps_from_running_waits():
    def work():
        """Work until another process on the same processor has interrupted it; at most a minute."""
        begun, before = time.thread_time(), runner.waited(threading.current_thread())
        while (found := runner.waited(threading.current_thread()) - before) <= 0.01:
            if time.thread_time() > begun + 60:
                break
        return found

    processors = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            for process in (other.pid, 0):
                os.sched_setaffinity(process, {min(processors)})
            assert work() > 0.01
        finally:
            other.kill()
            os.sched_setaffinity(0, processors)


def test_a_call_that_cannot_be_ended_is_left_behind_and_said(monkeypatch):
    monkeypatch.setattr(runner, "GRACE", 0.3)
    let_go = threading.Event()
    feedback = hasty.judge(lambda number: let_go.wait())
    assert "restart the kernel" in feedback.message
    let_go.set()
    assert double.judge(lambda number: 2 * number).passed


def test_recursion_without_end():
    def deeper(number):
        return deeper(number)

    assert "RecursionError" in double.judge(deeper).message


def test_memory_without_end_is_ended(monkeypatch):
    hoard = []

    def hoards(number):
        while True:
            hoard.append(np.ones(30_000))
            time.sleep(0.001)  # not so fast that the machine's memory is used up before somebody looks

    monkeypatch.setattr(runner, "GRACE", 120.0)
    run = runner.run(lambda: hoards(1), seconds=120, memory=2**26)
    hoard.clear()
    assert run.stopped == "memory"
    assert not run.alive


def test_a_tensor_larger_than_the_machine_is_an_error_in_a_line():
    assert "RuntimeError" in double.judge(lambda number: torch.empty(2**60)).message


def test_the_stop_button_ends_the_check_and_the_answer():
    ended, folder = threading.Event(), Path.cwd()

    def forever(number):
        os.chdir("/")
        try:
            _thread.interrupt_main()
            while True:
                time.sleep(0.01)
        finally:
            ended.set()

    # as in a kernel: tests that run in the background of a shell are started with SIGINT ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            runner.run(lambda: forever(1), seconds=120)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.wait(120)
    assert Path.cwd() == folder


# --- no trace


def test_nothing_of_the_process_is_changed_by_an_answer_that_changes_all(tmp_path):
    def vandal(number):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(3)
        torch.set_default_device("meta")
        torch.use_deterministic_algorithms(True)
        torch.autograd.set_detect_anomaly(True)
        warnings.simplefilter("ignore")
        os.chdir(tmp_path)
        sys.stdout = None
        return 2 * number

    def state():
        numbers = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
        settings = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads())
        torch_too = (
            torch.ones(1).device,
            torch.are_deterministic_algorithms_enabled(),
            torch.is_anomaly_enabled(),
        )
        return numbers, settings, torch_too, list(warnings.filters), Path.cwd(), sys.stdout, sys.stderr

    with runner.no_trace(seed=5):
        expected = state()
    with runner.no_trace(seed=5):
        assert double.judge(vandal).passed
        assert state() == expected


def test_the_modes_around_a_check_do_not_reach_into_it():
    with torch.inference_mode():
        assert change.judge(lambda model: train_linear(model)).passed
    with torch.no_grad():
        assert change.judge(lambda model: train_linear(model)).passed


def train_linear(model):
    model(torch.ones(1, 1)).sum().backward()
    model.requires_grad_(False)


def test_the_seed_decides_what_an_answer_sees():
    seen = []
    for seed in (1, 1, 2):
        double.judge(lambda number: seen.append((torch.rand(1).item(), random.random())) or 2 * number, seed=seed)
    assert seen[:3] == seen[3:6] != seen[6:]


@pytest.mark.parametrize("outcome", ["right", "wrong", "raises"])
def test_nothing_of_the_learner_is_kept(outcome):
    class Heavy:
        pass

    def make():
        heavy, models = Heavy(), []

        def answer(model):
            models.append(weakref.ref(model))
            heavy.model = model
            model.requires_grad_(outcome == "wrong")
            if outcome == "raises":
                raise ValueError(heavy)

        return answer, weakref.ref(heavy), models

    answer, heavy, models = make()
    feedback = change.judge(answer)
    del answer
    gc.collect()
    assert heavy() is None
    assert models[0]() is None
    assert feedback.passed == (outcome == "right")


def test_limits_and_prints_hold_in_a_notebook_kernel(tmp_path):
    cells = [
        "from ftlab.exercises import freezing",
        "freezing.freeze_backbone.seconds = 120\ndef forever(model):\n    print('<here>')\n    while True: pass",
        "def fails(model):\n    model[0]\nfreezing.freeze_backbone.judge(fails)",
        "freezing.freeze_backbone.judge(freezing.freeze_backbone.function)",
        "freezing.freeze_backbone.seconds = 3\nfreezing.freeze_backbone.judge(forever)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=900, startup_timeout=300, iopub_timeout=300, resources=where
    ).execute()
    (failed,), (passed,), (stopped,) = (cell.outputs for cell in notebook.cells[2:])
    assert "It did not end within 3 seconds." in stopped.data["text/plain"]
    assert "<here>" in stopped.data["text/plain"]
    assert "in line 2 of `fails` (`model[0]`)" in failed.data["text/plain"]
    assert passed.data["text/plain"].startswith("✔")


# --- behaviour


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("build", [SmallResNet, small_mobilenet, small_vit])
def test_every_tensor_of_a_small_model_moves_in_training_if_nothing_is_frozen(build, seed):
    with runner.no_trace(seed):
        model = build()
        assert held(model, lambda: train(model)) == set()


def test_moved_and_held_are_each_other_s_rest():
    with runner.no_trace(0):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        names = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
        step = torch.nn.init.zeros_
        assert moved(model, lambda: step(model[0].weight)) == {"0.weight"}
        torch.nn.init.ones_(model[0].weight)
        assert held(model, lambda: step(model[0].weight)) == names - {"0.weight"}


def test_moved_sees_tied_replaced_and_new_tensors():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    assert moved(model, lambda: nn.init.zeros_(model[1].weight)) == {"0.weight", "1.weight"}

    def replace():
        model[1].bias = nn.Parameter(torch.full((2,), 9.0))
        model.register_buffer("extra", torch.zeros(1), persistent=False)

    assert moved(model, replace) == {"1.bias", "extra"}


def test_same_model_compares_what_an_answer_can_change():
    def pair():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    with runner.no_trace():
        one, other = pair(), pair()
        assert same_model(one, other) == []
        other[1].eval()
        other[0].weight.requires_grad_(False)
        other[0].bias.grad = torch.ones(2)
        other[1].running_mean += 1
        assert same_model(one, other) == ["0.bias.grad", "0.weight.requires_grad", "1.running_mean", "1.training"]


def test_below_takes_whole_names():
    with runner.no_trace(0):
        model = small_mobilenet()
    assert below(model, "features.1")
    assert not {name for name in below(model, "features.1") if name.startswith("features.10")}
    assert below(model, "classifier.3.bias") == {"classifier.3.bias"}


def test_expect_moves_says_nothing_where_all_is_right():
    with runner.no_trace(0):
        model = SmallResNet().requires_grad_(False)
        model.fc.requires_grad_(True)
        expect_moves(model, {"fc.weight", "fc.bias"})


def test_slips_of_the_pen_are_named():
    model = nn.Sequential(nn.Linear(1, 1))
    assert slip(model) == ""
    assert "eval mode" in slip(nn.Sequential(nn.Linear(1, 1)).eval())
    model[0].weight.requiresgrad = False
    assert slip(model) == "`0.weight` has got a new attribute `requiresgrad`, which PyTorch does not know."
    model.requires_grad = False
    assert slip(model).startswith("`requires_grad` is now an attribute of the model itself")


def test_a_solution_is_escaped_and_not_broken_within_a_word():
    assert Code("a < b")._repr_html_() == '<pre style="word-break: normal">a &lt; b</pre>'


def test_a_program_in_a_task_keeps_its_lines_and_its_indentation():
    html = Prose("Predict:\n\n    for x in y:\n        print(x)\n\nName `x`.")._repr_html_()
    assert "<pre>for x in y:\n    print(x)</pre>" in html
    assert "<div>Name <code>x</code>.</div>" in html
