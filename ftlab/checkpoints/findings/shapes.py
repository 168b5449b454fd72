"""Findings about tensors that are there with another shape, or of which a whole kind is not there."""

from ftlab.checkpoints.diagnosis import Case

_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")


def find_channels(case: Case) -> None:
    """Find a first convolution for pictures with another number of channels."""
    first = next((name for name, tensor in case.own.items() if tensor.dim() == 4), "")
    if first not in case.misfits:
        return
    theirs, ours = tuple(case.state[first].shape), tuple(case.own[first].shape)
    if len(theirs) != 4 or (theirs[0], *theirs[2:]) != (ours[0], *ours[2:]):
        return
    means, step = _channels(first, theirs[1], ours[1])
    case.found(
        "channels",
        f"the first convolution {first!r} takes {theirs[1]} channels in the file and {ours[1]} in the model",
        means,
        step,
    )
    case.explained.add(first)


def _channels(name: str, theirs: int, ours: int) -> tuple[str, str]:
    if ours == 1:
        return (
            "The file is for pictures in colour, the model for grey ones. A grey picture is one with the same "
            "number in each channel, so the fix adds the weights of the channels up: the output is the same.",
            f"state[{name!r}] = state[{name!r}].sum(1, keepdim=True)",
        )
    if theirs == 1:
        return (
            "The file is for grey pictures, the model for more channels. The fix gives every channel the same "
            f"weight, divided by {ours}: for a picture with the same number in each channel nothing changes.",
            f"state[{name!r}] = state[{name!r}].repeat(1, {ours}, 1, 1) / {ours}",
        )
    return (
        "The pictures were of another kind, and which of its channels is which of yours the file does not "
        "say. The fix leaves this layer out: it stays random, and has to be trained.",
        f"state = {{key: value for key, value in state.items() if key != {name!r}}}",
    )


def find_statistics(case: Case) -> None:
    """Find a file without the running statistics of batch norms."""
    missing = [name for name in case.missing if name.endswith(_STATISTICS[:2])]
    known = [name for name in case.own if name.endswith(_STATISTICS[:2])]
    weights = [name for name in case.own if not name.endswith(_STATISTICS)]
    if not missing or len(missing) != len(known) or any(name not in case.fitting() for name in weights):
        return
    case.found(
        "statistics",
        f"none of the {len(known)} running statistics of batch norms is in the file, such as {missing[0]!r}",
        "It was saved from model.parameters(), which has no buffers, or its model has another norm "
        "(GroupNorm) in these places. After loading, model.eval() uses the statistics of an untrained model, "
        "and predicts nonsense. Get a state_dict, or let the model see some data in train() first.",
    )
    case.explained.update(missing)


def find_shapes(case: Case) -> None:
    """Find what has another shape, where no finding has said why; it is left out."""
    if case.hopeless or case.loading or not case.misfits or not case.fitting():
        return
    names = case.misfits
    case.found(
        "shape",
        f"{len(names)} tensors have another shape, such as {names[0]!r}: {tuple(case.state[names[0]].shape)} "
        f"in the file, {tuple(case.own[names[0]].shape)} in the model",
        "load_state_dict raises about them, also with strict=False. The fix leaves them out: they stay random "
        "in the model, and have to be trained.",
        f"others = {names}\nstate = {{key: value for key, value in state.items() if key not in others}}",
    )
    case.explained.update(names)
