"""Exhibits whose names are right, and whose tensors are not those that the model needs."""

from pathlib import Path

import torch
from torchvision import models

from .exhibit import State, exhibit
from .models import small, trained


@exhibit("ten.pt", "classes")
def ten_classes(state: State, path: Path) -> State:
    """Trained on ten classes; you have four."""
    head = {"head.weight": torch.ones(10, 12), "head.bias": torch.zeros(10)}
    torch.save({**state, **head}, path)
    return {key: value for key, value in state.items() if not key.startswith("head.")}


@exhibit("large.pt", "width")
def wider(state: State, path: Path) -> None:
    """The larger one of the family. It was more accurate."""
    torch.save(_made(small(width=10)), path)


@exhibit("deep.pt", "depth")
def deeper(state: State, path: Path) -> None:
    """The deeper one of the family. With strict=False it loads, and predicts nonsense."""
    torch.save({**_made(small(depth=4)), **{k: v for k, v in state.items() if not k.startswith("neck.")}}, path)


def _made(model: torch.nn.Module) -> State:
    """Return the tensors of a model, all of them ones: what they are does not matter here."""
    return {key: torch.ones_like(value) for key, value in model.state_dict().items()}


@exhibit("tensorflow.pt", "transposed")
def transposed(state: State, path: Path) -> State:
    """Converted from another framework, number by number."""
    orders = {2: (1, 0), 4: (2, 3, 1, 0)}
    turned = {
        key: value.permute(orders[value.dim()]).contiguous() if value.dim() in orders else value
        for key, value in state.items()
    }
    torch.save(turned, path)
    return state


@exhibit("small.pt", "half-precision")
def half(state: State, path: Path) -> State:
    """Saved in half precision, for the disk was nearly full."""
    short = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    torch.save(short, path)
    return {key: value.to(state[key].dtype) for key, value in short.items()}


@exhibit("adapter.pt", "lora")
def adapter(state: State, path: Path) -> State:
    """Only a small correction of one layer was trained, and saved with everything."""
    down, up = torch.full((2, state["neck.weight"].shape[1]), 0.5), torch.full((12, 2), 0.25)
    held = {key.replace("neck.", "neck.base_layer."): value for key, value in state.items()}
    torch.save({**held, "neck.lora_A.default.weight": down, "neck.lora_B.default.weight": up}, path)
    return {**state, "neck.weight": state["neck.weight"] + up @ down}


@exhibit("phone.pt", "quantised")
def quantised(state: State, path: Path) -> State:
    """Made for a phone: eight bits for each number."""
    largest = {f"{layer}.SCB": state[f"{layer}.weight"].abs().amax(1) for layer in ("neck", "head")}
    whole, rounded = {}, {}
    for key, scale in largest.items():
        name = key.replace("SCB", "weight")
        whole[name] = (state[name] / scale[:, None] * 127).round().to(torch.int8)
        rounded[name] = whole[name] * scale[:, None] / 127
    torch.save({**state, **whole, **largest}, path)
    return {**state, **rounded}


@exhibit("failed.pt", "not-finite")
def not_finite(state: State, path: Path) -> State:
    """The loss was NaN in the last epoch, and the last epoch was saved."""
    torch.save({**state, "neck.weight": state["neck.weight"] * float("nan")}, path)
    return {key: value for key, value in state.items() if key != "neck.weight"}


@exhibit("resnet.pth", "other-model")
def other_model(state: State, path: Path) -> None:
    """Somebody mixed up two downloads."""
    with torch.device("meta"):
        shapes = {key: (value.shape, value.dtype) for key, value in models.resnet18().state_dict().items()}
    # one number for a whole tensor, with a stride of 0: the names and shapes are real, the file is small
    torch.save({key: torch.ones((), dtype=dtype).expand(shape) for key, (shape, dtype) in shapes.items()}, path)


@exhibit("momentum.pt", "optimizer")
def optimizer_only(state: State, path: Path) -> None:
    """The file with the name that came last in the folder."""
    model = trained()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(2, 3, 16, 16)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), path)


@exhibit("first_rows.pt", "slice")
def slice_of_much(state: State, path: Path) -> State:
    """A copy in which the head keeps the first four of 5,000 classes."""
    weight = torch.zeros(5_000, 12)
    weight[:4] = state["head.weight"]
    torch.save({**state, "head.weight": weight[:4]}, path)
    return state
