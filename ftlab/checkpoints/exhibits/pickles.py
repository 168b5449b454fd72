"""Exhibits whose pickle asks for more than tensors: harmless things, whole models, and a booby trap."""

import argparse
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .exhibit import State, exhibit, trap
from .models import trained


@exhibit("accuracy.pt", "metadata", "nested")
def with_metadata(state: State, path: Path) -> State:
    """The best accuracy was saved with it, and the arguments of the program."""
    held = {"model": state, "accuracy": np.float64(0.913), "args": argparse.Namespace(lr=0.1, epochs=90)}
    torch.save(held, path)
    return state


@exhibit("model.pkl", "whole-model")
def whole_model(state: State, path: Path) -> State:
    """Saved with torch.save(model, path), as an old tutorial has it."""
    torch.save(trained(), path)
    return state


@exhibit("lost.pkl", "dangerous", "whole-model")
def lost_class(state: State, path: Path) -> State:
    """A whole model again. The program that had its class was never published."""
    torch.save(trained(), path)
    _replace(path, b"torch.nn.modules.container\nSequential", b"my_secret_project.network_x\nSequential")
    return state


@exhibit("from_gpu.pt", "device")
def from_gpu(state: State, path: Path) -> State:
    """Saved on a machine with a GPU. Yours has none."""
    torch.save(state, path)
    _replace(path, b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    return state


@exhibit("weights_final.pt", "dangerous")
def booby_trap(state: State, path: Path) -> State:
    """Found on a forum: 'use weights_only=False, then it works'."""
    torch.save({**state, "notes": _Trap(path.parent)}, path)
    return state


@exhibit("vgg_old.pkl", "dangerous")
def booby_trap_in_a_pickle(state: State, path: Path) -> State:
    """The same, in a plain pickle."""
    path.write_bytes(pickle.dumps({**state, "notes": _Trap(path.parent)}, protocol=2))
    return state


@exhibit("2017.pth")
def old_format(state: State, path: Path) -> State:
    """From a time before torch wrote zip files. It is in order."""
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return state


class _Trap:
    """When it is loaded without protection, it makes a file in the museum: harmless, and a proof."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (trap(self.folder),)


def _replace(path: Path, old: bytes, new: bytes) -> None:
    """Replace bytes in the pickle of an archive, and pack it again."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data.replace(old, new) if name.endswith("data.pkl") else data)
