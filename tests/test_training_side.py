"""Two threads with half of the cores each: order, errors, stops, and what is left behind."""

import threading
import time

import pytest
import torch

from ftlab.training.caching.side import SideBySide

CPU = torch.device("cpu")


@pytest.fixture
def two_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_calls_run_in_two_threads_with_one_core_each(two_cores):
    both, found = threading.Barrier(2), []

    def call():
        both.wait(timeout=300)  # passes only if two calls run at the same time
        found.append((threading.get_ident(), torch.get_num_threads()))

    with SideBySide(CPU) as beside:
        beside.call(call)
        beside.call(call)
    assert len({thread for thread, _ in found}) == 2
    assert {cores for _, cores in found} == {1}


def test_afterwards_each_thread_has_all_cores_again(two_cores):
    with SideBySide(CPU) as beside:
        beside.call(torch.zeros, 1)
    assert torch.get_num_threads() == 2
    assert threads_of_a_new_thread() == 2


@pytest.mark.parametrize("alone", ["one core", "autocast", "another device"])
def test_where_threads_do_not_help_the_call_runs_here(alone, two_cores):
    if alone == "one core":
        torch.set_num_threads(1)
    device = torch.device("meta") if alone == "another device" else CPU
    found = []
    with torch.autocast("cpu", enabled=alone == "autocast"), SideBySide(device) as beside:
        beside.call(lambda: found.append(threading.get_ident()))
    assert found == [threading.get_ident()]


@pytest.mark.parametrize("others", [0, 10])
def test_an_error_in_a_thread_is_raised_here(others, two_cores):
    def run():
        with SideBySide(CPU) as beside:
            beside.call(lambda: 1 / 0)
            for _ in range(others):
                beside.call(torch.zeros, 1)

    with pytest.raises(ZeroDivisionError):
        run()
    assert torch.get_num_threads() == 2


def test_a_stop_here_drops_what_has_not_begun_and_waits_for_the_rest(two_cores):
    begun, goes_on, ended = threading.Semaphore(0), threading.Event(), []

    def call():
        begun.release()
        goes_on.wait(timeout=300)
        ended.append(threading.get_ident())

    def go_on_when_cancelled(last):
        while not last.done():  # a cancelled one is
            time.sleep(0.01)
        goes_on.set()

    def run():
        with SideBySide(CPU) as beside:
            for _ in range(3):  # two run, one waits
                beside.call(call)
            for _ in range(2):
                begun.acquire(timeout=300)
            threading.Thread(target=go_on_when_cancelled, args=[beside.waiting[-1]]).start()
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(ended) == 2
    assert threading.active_count() <= before + 1  # the one above may still be ending
    assert torch.get_num_threads() == 2


def test_no_more_batches_wait_than_there_is_work_for(two_cores):
    goes_on, begun = threading.Event(), []
    with SideBySide(CPU) as beside:
        for _ in range(3):
            beside.call(goes_on.wait, 300)
        threading.Timer(0.1, goes_on.set).start()
        beside.call(begun.append, 1)  # returns only when an earlier call is done
        assert goes_on.is_set()
    assert begun == [1]
