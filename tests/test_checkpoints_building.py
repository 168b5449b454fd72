"""A model built right from a file: values, ties, types, and what does not fit."""

import pytest
import torch
from torch import nn

from ftlab import pretrained
from ftlab.checkpoints import build, save


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5)
        self.out.weight = self.embed.weight


class OwnBuffer(nn.Linear):
    def __init__(self):
        super().__init__(2, 2)
        self.register_buffer("mask", torch.ones(2), persistent=False)


def same_tensors(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_real_network_has_the_values_of_the_file_and_draws_no_number(tmp_path):
    model = pretrained.load(num_classes=8)
    torch.save(model.state_dict(), tmp_path / "x.pt")
    state = torch.get_rng_state()
    built = build(lambda: pretrained.load(weights=None, num_classes=8), tmp_path / "x.pt")
    assert torch.equal(state, torch.get_rng_state())
    assert same_tensors(model, built)
    assert all(parameter.requires_grad for parameter in built.parameters())
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(model.eval()(image), built.eval()(image))


def test_it_can_be_trained_and_the_file_stays_as_it_is(tmp_path):
    path = tmp_path / "x.pt"
    model = nn.Linear(3, 2)
    save(path, model=model)
    before = path.read_bytes()
    built = build(lambda: nn.Linear(3, 2), path)
    optimizer = torch.optim.SGD(built.parameters(), lr=0.1)
    built(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not same_tensors(model, built)
    assert path.read_bytes() == before


def test_ties_are_ties_again(tmp_path):
    model = Tied()
    torch.save(model.state_dict(), tmp_path / "x.pt")
    built = build(Tied, tmp_path / "x.pt")
    assert built.out.weight is built.embed.weight
    assert same_tensors(model, built)


def test_the_old_format_is_read_without_mapping(tmp_path):
    model = nn.Linear(3, 2)
    torch.save(model.state_dict(), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert same_tensors(model, build(lambda: nn.Linear(3, 2), tmp_path / "x.pt"))


def test_the_type_is_that_of_the_file(tmp_path):
    torch.save(nn.Linear(3, 2).half().state_dict(), tmp_path / "x.pt")
    assert build(lambda: nn.Linear(3, 2), tmp_path / "x.pt").weight.dtype == torch.float16


def test_what_does_not_fit_is_said(tmp_path):
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"does not fit this Linear; ftlab.checkpoints.diagnose.*says why"):
        build(lambda: nn.Linear(3, 2), tmp_path / "x.pt")
    torch.save(OwnBuffer().state_dict(), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"'mask' is a buffer that is in no file.*load_into"):
        build(OwnBuffer, tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError):
        build(OwnBuffer, tmp_path / "nowhere.pt")
