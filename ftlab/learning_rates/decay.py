"""Layer-wise decay: the nearer to the image, the smaller the rate."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from ftlab.given import expect, inside

from .groups import _NORMS, NOTHING, ParameterGroups, split_decay
from .options import check_options, check_rate

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
Block = tuple[str, list[nn.Parameter]]


def layer_decay(
    model: nn.Module, lr: float, decay: float, *, no_decay: bool = False, frozen: bool = False, **options: Any
) -> ParameterGroups:
    """Return a group per block: `lr` for the head, and `decay` times the rate from each block to the one before.

    The model is not changed. Depth 0 is the block that sees the image; the head is the deepest. Every trainable
    parameter is in exactly one group. Auxiliary heads (GoogLeNet, Inception) learn at the rate of the head, bare
    parameters (a class token, a position embedding) at that of depth 0, and a norm at that of the block before.

    The trap: with many blocks the first ones hardly learn. 0.75 over twelve blocks leaves them 3 % of the rate.

    Args:
        model: Its modules stand in the order of `forward`, as in every classification network of torchvision.
            What `DataParallel` or `torch.compile` made of it is opened. A whole network in a class of your own
            (`self.backbone`) is one block: take `[*layer_decay(model.backbone, lr * decay, decay), new]`, with
            a group `new = {"params": model.head.parameters(), "lr": lr}`.
        lr: Learning rate of the head.
        decay: Factor from one block to the one before; 1 gives all the same. ULMFiT divides by 2.6 (0.38), the
            recipes of vision transformers multiply by 0.65 to 0.9.
        no_decay: As in `parameter_groups`: no *weight* decay for biases and norms.
        frozen: As in `parameter_groups`.
        **options: More options for all groups, such as `weight_decay`.

    Raises:
        ValueError: If `decay` is not in (0, 1], `lr` is negative, an option is misspelt, or nothing is trainable.
        TypeError: If `lr` or `decay` is no number.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2))
        >>> layer_decay(model, lr=1e-2, decay=0.5)
        group      depth      lr    tensors    values
        -------  -------  ------  ---------  --------
        0, 1           0  0.0025          4        28
        2              1  0.005           2        20
        3              2  0.01            2        10
    """
    expect(model, nn.Module, "the model", "layer_decay(model, lr, decay)")
    expect(decay, (int, float), "decay", "layer_decay(model, lr, decay=0.7)")
    if not 0 < decay <= 1:
        raise ValueError(f"decay is a factor above 0 and at most 1, not {decay!r}")
    check_rate(lr, "layer_decay")
    check_options(options, "layer_decay")
    model = inside(model)
    found = depths(model)
    parts = []
    for depth, (label, parameters) in enumerate(found):
        rate = lr * decay ** (len(found) - 1 - depth)
        members = [p for p in parameters if p.requires_grad or frozen]
        if members:
            parts.append((label, members, {"depth": depth, "lr": rate} | options))
    if not parts:
        raise ValueError(NOTHING)
    return split_decay(model, parts, no_decay)


def depths(model: nn.Module) -> list[Block]:
    """Return the blocks from the image to the head: what each is called, and its parameters, each once."""
    blocks: list[Block] = []
    bare: list[nn.Parameter] = []
    side: list[Block] = []  # auxiliary heads
    for name, module in _units(model):
        own = list(module.parameters(recurse=not _unfolds(module, name)))
        if not own:
            continue
        if _unfolds(module, name):
            bare += own
        elif name.lower().startswith("aux"):
            side.append((name, own))
        elif isinstance(module, _NORMS) and blocks:
            label, before = blocks[-1]
            blocks[-1] = (f"{label}, {name}", before + own)
        else:
            blocks.append((name or type(module).__name__, own))  # a layer alone has no name
    if not blocks:
        return [(type(model).__name__, bare)] if bare else []
    blocks[0] = (blocks[0][0], bare + blocks[0][1])
    label, head = blocks[-1]
    blocks[-1] = (", ".join([label, *(n for n, _ in side)]), head + [p for _, more in side for p in more])
    return _once(blocks)


def _once(blocks: list[Block]) -> list[Block]:
    """Leave a tied parameter in the first block that has it."""
    seen: set[int] = set()
    found = []
    for label, parameters in blocks:
        fresh = list({id(p): p for p in parameters if id(p) not in seen}.values())
        seen.update(id(p) for p in fresh)
        if fresh:
            found.append((label, fresh))
    return found


def _units(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the blocks in order, and each module around them, for its bare parameters."""
    yield name, module
    if _unfolds(module, name):
        for child, inner in module.named_children():
            yield from _units(inner, f"{name}.{child}" if name else child)


def _unfolds(module: nn.Module, name: str) -> bool:
    """Return whether a module is a row of blocks; a residual block is one block, however much is in it."""
    children = list(module.children())
    if not name or isinstance(module, _CONTAINERS):
        return bool(children)
    rows = [child for child in children if isinstance(child, nn.Sequential)]  # several of them are branches
    row = len(rows) == 1 and _is_row(rows[0])
    return row or any(isinstance(child, nn.ModuleList) for child in children)


def _is_row(sequence: nn.Sequential) -> bool:
    """Return whether a sequence is made of blocks of one kind, like the layers of a transformer's encoder."""
    kinds = {type(block) for block in sequence}
    return len(kinds) == 1 and all(
        not isinstance(block, _CONTAINERS) and any(True for _ in block.children()) for block in sequence
    )
