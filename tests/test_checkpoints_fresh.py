"""A call in a fresh process: what is handed over, what comes back, what is said if it fails."""

import os
import sys

import pytest
import torch

from ftlab.checkpoints.fresh import call_fresh


def test_it_is_another_process_with_the_same_paths_and_threads():
    pid, paths, threads = call_fresh(lambda: (os.getpid(), sys.path, torch.get_num_threads()))
    assert pid != os.getpid()
    assert set(filter(None, sys.path)) <= set(paths)
    assert threads == torch.get_num_threads()


def test_variables_around_the_function_travel_with_it():
    weight = torch.arange(3.0)

    def doubled(factor):
        return weight * factor

    assert torch.equal(call_fresh(doubled, 2), torch.tensor([0.0, 2.0, 4.0]))


def test_an_error_there_is_told_here_and_so_is_a_kill():
    with pytest.raises(RuntimeError, match=r"exit code 1(.|\n)*ZeroDivisionError"):
        call_fresh(divmod, 1, 0)
    with pytest.raises(RuntimeError, match=r"exit code -?9"):
        call_fresh(lambda: os.kill(os.getpid(), 9))


def test_without_cloudpickle_only_functions_of_modules_travel(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    assert call_fresh(divmod, 7, 2) == (3, 1)
    with pytest.raises(ModuleNotFoundError, match="pip install cloudpickle, or put it into a module"):
        call_fresh(lambda: 1)
