"""Findings about weights that a file has in parts: a tool computes them anew for each forward pass."""

from ftlab.checkpoints.diagnosis import Case

_COUNTERS = ("total_ops", "total_params")


def find_counters(case: Case) -> None:
    """Find the counters that a profiler has left in a model."""
    names = [name for name in case.extra if name.rpartition(".")[2] in _COUNTERS]
    if names:
        case.found(
            "counters",
            f"{len(names)} tensors are counters of a profiler, such as {names[0]!r}",
            "A tool that counts operations (thop) puts buffers into the model, and they were saved with it. "
            "load_state_dict raises about them. The fix leaves them out.",
            f"counters = {_COUNTERS}\n"
            "state = {key: value for key, value in state.items() if key.rpartition('.')[2] not in counters}",
        )


def find_pruned(case: Case) -> None:
    """Find weights with a mask, as `torch.nn.utils.prune` keeps them."""
    names = [
        name.removesuffix("_mask")
        for name in case.extra
        if name.endswith("_mask") and name.removesuffix("_mask") + "_orig" in case.state
    ]
    if names:
        case.found(
            "pruned",
            f"{len(names)} weights are there as {names[0] + '_orig'!r} and {names[0] + '_mask'!r}",
            "The model was pruned with torch.nn.utils.prune, and prune.remove was not called before it was "
            "saved. The weight is the product of the two; the fix multiplies them.",
            f"pruned = {names}\nfor name in pruned:\n"
            '    state[name] = state.pop(name + "_orig") * state.pop(name + "_mask")',
        )


def find_weight_norm(case: Case) -> None:
    """Find weights that are kept as a length and a direction."""
    found = {}
    for name in case.missing:
        layer, _, leaf = name.rpartition(".")
        inside = f"{layer}.parametrizations.{leaf}." if layer else f"parametrizations.{leaf}."
        for length, direction in ((f"{name}_g", f"{name}_v"), (f"{inside}original0", f"{inside}original1")):
            lengths, directions = case.state.get(length), case.state.get(direction)
            if lengths is not None and directions is not None and lengths.numel() == len(directions):
                found[name] = (length, direction)
    if found:
        name, (length, direction) = next(iter(found.items()))
        case.found(
            "weight-norm",
            f"{len(found)} weights are there as a length and a direction, such as {length!r} and {direction!r}",
            "The layers had weight_norm when the model was saved. The fix computes the weights: direction, "
            "divided by its length, times the length that was learned.",
            f"parts = {found}\nfor name, (length, direction) in parts.items():\n"
            "    length, direction = state.pop(length), state.pop(direction)\n"
            "    norm = direction.flatten(1).norm(dim=1)\n"
            "    state[name] = direction * (length / norm.view_as(length))",
        )
