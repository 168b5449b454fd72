"""Small things to call a learner's training function with, chosen by the names of its parameters."""

import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler
from torch.utils.data import DataLoader, TensorDataset

CLASSES, SIZE, BATCH, IMAGES = 3, 16, 4, 18  # 18 images in batches of 4: the last batch is a small one

_NAMES = {
    "model": ["model", "net", "network", "classifier", "cnn"],
    "optimizer": ["optimizer", "optim", "opt", "optimiser"],
    "scheduler": ["scheduler", "lr_scheduler", "sched", "lr_sched"],
    "scaler": ["scaler", "grad_scaler", "loss_scaler"],
    "loss": ["criterion", "loss_fn", "loss_func", "loss_function", "crit", "lossf"],
    "loader": ["loader", "dataloader", "data_loader", "batches", "data", "dl", "train", "val"],
    "dataset": ["dataset", "train_dataset", "val_dataset", "train_data", "train_set"],
    "images": ["images", "inputs", "x", "xb", "imgs", "image", "input", "batch_x", "bx", "img", "features"],
    "targets": ["labels", "targets", "y", "yb", "target", "label", "batch_y", "by", "classes"],
    "batch": ["batch", "sample"],
    "device": ["device", "dev"],
    "epochs": ["epochs", "num_epochs", "n_epochs", "max_epochs", "nepochs"],
    "zero": ["epoch", "i", "step", "batch_idx", "idx", "iteration", "it"],
    "few": ["steps", "max_steps", "num_steps", "iterations", "n_steps", "max_iters"],
    "window": ["accumulation_steps", "accumulate", "accum_iter", "accum_steps", "grad_accum", "accumulation",
               "gradient_accumulation_steps", "iters_to_accumulate", "n_accumulate", "window"],
    "one": ["max_norm", "clip", "clip_grad_norm", "grad_clip", "clip_norm", "clip_grad"],
    "rate": ["lr", "learning_rate"],
    "classes": ["num_classes", "n_classes"],
}  # fmt: skip
_ROLE = {name: role for role, names in _NAMES.items() for name in names}
OVERRULED = ("epochs", "few")  # these are chosen small even where the function has a default


class UnknownParameterError(ValueError):
    """A parameter that nobody gave and that no name explains."""


def bind(function: Callable, given: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return a value for each parameter, and whether some of them are our own.

    Raises:
        UnknownParameterError: A parameter is neither given nor known by its name.
        TypeError: A given name is no parameter.
    """
    parameters = inspect.signature(function).parameters
    loose = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if strange := [name for name in given if name not in parameters and not loose]:
        known = ", ".join(parameters) or "none"
        raise TypeError(f"{function.__name__} has no parameter {strange[0]!r}; its parameters are {known}")
    roles = {name: _role(name, parameters) for name in parameters}
    made = _Made({roles[name]: value for name, value in given.items() if name in roles})
    values, own = dict(given), False
    for name, parameter in parameters.items():
        if name in given or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        has_default = parameter.default is not parameter.empty
        if has_default and roles[name] not in OVERRULED:
            continue
        if not roles[name]:
            raise UnknownParameterError(
                f"what is `{name}`? Hand it over: check_loop({function.__name__}, {name}=...)"
            )
        values[name], own = (
            made.get(roles[name]),
            own or roles[name] in ("model", "optimizer", "images", "loader"),
        )
    return values, own


def _role(name: str, parameters: Any) -> str:
    word = name.lower().lstrip("_")
    images = any(_ROLE.get(other) == "targets" for other in parameters)
    if images and word == "data":
        return "images"
    if word not in _ROLE and word.endswith(("loader", "_dl", "_batches")):
        return "loader"
    return _ROLE.get(word, "")


class _Made:
    """Make each thing once; an optimizer is made of the model, a scheduler of the optimizer."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.made = {role: value for role, value in given.items() if role}

    def get(self, role: str) -> Any:
        if role not in self.made:
            self.made[role] = getattr(self, f"_{role}", lambda: _PLAIN[role])()
        return self.made[role]

    def _model(self) -> nn.Module:
        return small_model()

    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.get("model").parameters(), lr=0.1)

    def _scheduler(self) -> Any:
        return torch.optim.lr_scheduler.StepLR(self.get("optimizer"), step_size=10)

    def _scaler(self) -> GradScaler:
        return GradScaler("cpu", init_scale=8.0)

    def _loss(self) -> nn.Module:
        return nn.CrossEntropyLoss()

    def _dataset(self) -> TensorDataset:
        return TensorDataset(torch.randn(IMAGES, 3, SIZE, SIZE), torch.arange(IMAGES) % CLASSES)

    def _loader(self) -> DataLoader:
        return DataLoader(self.get("dataset"), batch_size=BATCH)

    def _images(self) -> torch.Tensor:
        return torch.randn(BATCH, 3, SIZE, SIZE)

    def _targets(self) -> torch.Tensor:
        return torch.arange(BATCH) % CLASSES

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._images(), self._targets()

    def _device(self) -> torch.device:
        return torch.device("cpu")


_PLAIN = {"epochs": 2, "zero": 0, "few": 3, "window": 2, "one": 1.0, "rate": 0.1, "classes": CLASSES}


def small_model() -> nn.Sequential:
    """Return a small convolutional network with a batch norm and a dropout, for three classes."""
    features = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU())
    parts = [("features", features), ("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())]
    return nn.Sequential(OrderedDict([*parts, ("dropout", nn.Dropout(0.1)), ("fc", nn.Linear(4, CLASSES))]))
