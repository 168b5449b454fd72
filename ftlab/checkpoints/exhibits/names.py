"""Exhibits whose tensors are right, and whose names are not."""

from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel

from .exhibit import State, exhibit
from .models import trained, wrapped


@exhibit("weights.pt")
def innocent(state: State, path: Path) -> State:
    """Saved with torch.save(model.state_dict(), path). Nothing is wrong with it."""
    torch.save(state, path)
    return state


@exhibit("parallel.pth", "prefix")
def parallel(state: State, path: Path) -> State:
    """Trained on two GPUs. With strict=False it loads without an error."""
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    return state


@exhibit("fast.pt", "prefix")
def compiled(state: State, path: Path) -> State:
    """The model was compiled to be faster, and the compiled one was saved."""
    torch.save({f"_orig_mod.{key}": value for key, value in state.items()}, path)
    return state


@exhibit("fast_parallel.pt", "prefix")
def compiled_parallel(state: State, path: Path) -> State:
    """Compiled, and trained on two GPUs."""
    torch.save({f"_orig_mod.module.{key}": value for key, value in state.items()}, path)
    return state


@exhibit("half_fast.pt", "inner-prefix")
def compiled_body(state: State, path: Path) -> State:
    """Only the body was compiled, for the head has to be changed often."""
    torch.save({key.replace("body.", "body._orig_mod."): value for key, value in state.items()}, path)
    return state


@exhibit("trainer.ckpt", "nested", "prefix")
def trainer(state: State, path: Path) -> State:
    """A trainer keeps the model in self.model, and saved itself with all that it needs to go on."""
    torch.save({"epoch": 7, "state_dict": {f"model.{key}": value for key, value in state.items()}}, path)
    return state


@exhibit("detector.pth", "prefix")
def backbone(state: State, path: Path) -> State:
    """A detector of traffic signs. Somebody said that its backbone would be just right."""
    box = {"boxes.weight": torch.ones(4, 12), "boxes.bias": torch.zeros(4)}
    torch.save({**{f"backbone.{key}": value for key, value in state.items()}, **box}, path)
    return state


@exhibit("plain.pth", "wrapped-model", build=wrapped)
def wrapped_model(state: State, path: Path) -> State:
    """The file is in order. It is your model that is inside of DataParallel."""
    torch.save(state, path)
    return {f"module.{key}": value for key, value in state.items()}


@exhibit("epoch_12.pt", "nested")
def training_run(state: State, path: Path) -> State:
    """A whole training run: model, optimizer, schedule and epoch."""
    model = trained()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    held = {"model": state, "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "epoch": 12}
    torch.save(held, path)
    return state


@exhibit("two.pt", "nested", "ema")
def two_copies(state: State, path: Path) -> State:
    """The model as it was trained, and the average over the last steps."""
    average = {key: value * 0.9 if value.is_floating_point() else value for key, value in state.items()}
    torch.save({"model_ema": average, "model": state}, path)
    return state


@exhibit("averaged.pt", "prefix")
def averaged(state: State, path: Path) -> State:
    """The average of the weights over the last epochs, from torch.optim.swa_utils."""
    torch.save(AveragedModel(trained()).state_dict(), path)
    return state


@exhibit("theirs.pth", "renamed")
def renamed(state: State, path: Path) -> State:
    """The same network, trained by a group that had other words for everything."""
    words = {
        "stem.conv": "conv0", "stem.norm": "bn0", "body.0.conv": "stage1.c", "body.0.norm": "stage1.b",
        "body.1.conv": "stage2.c", "body.1.norm": "stage2.b", "neck": "embedding", "head": "logits",
    }  # fmt: skip
    torch.save({f"{words[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": v for key, v in state.items()}, path)
    return state
