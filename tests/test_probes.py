"""Every sentence that a lesson teaches as a fact about PyTorch is true with the version installed."""

import pytest
import torch

from ftlab import probes


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
