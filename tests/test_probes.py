"""Every sentence that a lesson teaches as a fact about PyTorch is true with the version installed."""

import subprocess
import sys

import pytest
import torch
import torchvision

from ftlab import probes
from ftlab.probes.__main__ import main


@pytest.mark.parametrize(
    "probe", probes.all_probes(), ids=lambda probe: f"{probe.topic}.{probe.function.__name__}"
)
def test_the_sentence_is_true(probe):
    assert probe.holds(), f"no longer true with torch {torch.__version__}: {probe.sentence}"


@pytest.mark.parametrize(
    "probe", probes.all_probes(), ids=lambda probe: f"{probe.topic}.{probe.function.__name__}"
)
def test_it_is_a_sentence(probe):
    assert probe.sentence.endswith(".")


def test_a_sentence_that_is_false_or_breaks_is_seen(monkeypatch):
    def breaks():
        return torch.a_function_that_was_removed()

    declared = [probes.Probe("False.", lambda: False), probes.Probe("Gone.", breaks)]
    monkeypatch.setattr(probes, "all_probes", lambda topic=None: declared)
    verdicts = [row["true here"] for row in probes.run().to_dict()]
    assert verdicts[0] == "NO"
    assert verdicts[1].startswith("NO: AttributeError: module 'torch' has no attribute")


def test_a_topic_can_be_run_alone():
    assert {row["topic"] for row in probes.run("freezing").to_dict()} == {"freezing"}


# By itself, for another torch: python -m ftlab.probes


def test_the_command_prints_each_sentence_with_its_verdict():
    ran = subprocess.run([sys.executable, "-m", "ftlab.probes", "modes"], capture_output=True, text=True)
    first, *lines, last = ran.stdout.splitlines()
    assert first == f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    assert lines == [f"true   modes: {probe.sentence}" for probe in probes.all_probes("modes")]
    assert last == f"{len(lines)} of {len(lines)} sentences are true here"
    assert ran.returncode == 0


def test_a_false_sentence_and_a_topic_that_cannot_be_loaded_end_with_1(monkeypatch, capsys):
    def declared(topic):
        if topic == "freezing":
            raise ImportError("no such thing in this torch")
        return [
            probes.Probe("A.", lambda: True),
            probes.Probe("B.", lambda: False),
            probes.Probe("C.", lambda: 1 / 0),
        ]

    monkeypatch.setattr(probes, "all_probes", declared)
    assert main(["freezing", "modes"]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "false  freezing: its probes cannot be loaded (ImportError: no such thing in this torch)",
        "true   modes: A.",
        "false  modes: B.",
        "false  modes: C. (ZeroDivisionError: division by zero)",
        "1 of 4 sentences are true here",
    ]


def test_a_topic_that_is_not_there_is_said_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["freezin"])
    assert stopped.value.code == 2
    assert "there is no topic 'freezin'; the nearest is 'freezing'" in capsys.readouterr().err
