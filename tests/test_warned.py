"""Warnings of answers: the known ones are kept from the report, and no other."""

import warnings

import pytest
import torch
from torch.nn import functional as F

from ftlab.exercises import training
from tests.warned import only_known_warnings


def test_the_broadcast_that_an_exercise_is_about_is_known():
    with only_known_warnings():
        training.squared_error.judge(training.squared_error.broken)


def test_another_warning_of_an_answer_fails():
    def deprecated(outputs, labels):
        warnings.warn("this is old", UserWarning, stacklevel=1)
        return F.mse_loss(outputs, F.one_hot(labels, outputs.shape[1]).float())

    with pytest.raises(AssertionError, match="this is old"), only_known_warnings():
        training.squared_error.judge(deprecated)


def test_the_same_warning_from_another_place_fails():
    def broadcast(outputs, labels):
        return F.mse_loss(outputs, torch.zeros(1))

    with pytest.raises(AssertionError, match="Using a target size"), only_known_warnings():
        training.squared_error.judge(broadcast)
