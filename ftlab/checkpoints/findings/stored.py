"""Findings about how tensors are stored: without values, sparse, empty, or as another kind of number."""

from ftlab.checkpoints.diagnosis import Case
from ftlab.checkpoints.file_findings import FLAT, NO_VALUES


def find_without_values(case: Case) -> None:
    """Find tensors of the meta device; they are left out."""
    names = [name for name, tensor in case.state.items() if tensor.is_meta]
    if names:
        case.found(
            "no-values",
            f"{len(names)} tensors have no values, such as {names[0]!r}",
            NO_VALUES,
            "state = {key: value for key, value in state.items() if not value.is_meta}",
        )
        case.explained.update(names)


def find_flat(case: Case) -> None:
    """Find the long rows in which a sharded training keeps the weights of whole blocks."""
    names = [name for name in case.extra if name.rpartition(".")[2] in ("_flat_param", "flat_param")]
    if names:
        case.found("flat", f"{len(names)} tensors are rows of many weights, such as {names[0]!r}", FLAT)
        case.hopeless = True


def find_sparse(case: Case) -> None:
    """Find sparse tensors; they are written out."""
    names = [name for name, tensor in case.state.items() if str(tensor.layout) != "torch.strided"]
    if names:
        case.found(
            "sparse",
            f"{len(names)} tensors are sparse, such as {names[0]!r}",
            "Only the numbers that are not zero were saved, with their places. Most layers want ordinary "
            "tensors; the fix writes the zeros out.",
            "import torch\n\nstate = {\n    key: value if value.layout == torch.strided else value.to_dense()\n"
            "    for key, value in state.items()\n}",
        )


def find_empty(case: Case) -> None:
    """Find tensors without a single number where the model has some; they are left out."""
    names = [name for name in case.misfits if not case.state[name].numel()]
    if names:
        case.found(
            "empty-tensors",
            f"{len(names)} tensors have no numbers at all, such as {names[0]!r}: "
            f"{tuple(case.state[names[0]].shape)} in the file, {tuple(case.own[names[0]].shape)} in the model",
            "They are placeholders: in training that shards its parameters (DeepSpeed ZeRO stage 3, FSDP) the "
            "state_dict of one process does not have them. DeepSpeed puts a zero_to_fp32.py into the folder, "
            "which gathers them; for FSDP, save with torch.distributed.checkpoint. The fix leaves them out.",
            f"empty = {names}\nstate = {{key: value for key, value in state.items() if key not in empty}}",
        )
        case.explained.update(names)


def find_other_numbers(case: Case) -> None:
    """Find complex or whole numbers where the model has real ones; loading would turn them without an error."""
    names = [
        name
        for name in case.fitting()
        if case.own[name].is_floating_point() and not case.state[name].is_floating_point()
    ]
    if names:
        case.found(
            "other-numbers",
            f"{len(names)} tensors are {case.state[names[0]].dtype}, the model's are "
            f"{case.own[names[0]].dtype}, such as {names[0]!r}",
            "load_state_dict takes them without an error: of complex numbers it drops the imaginary part, and "
            "whole numbers are quantised weights whose scale is not in the file. The model would compute "
            "nonsense. The fix leaves them out.",
            f"others = {names}\nstate = {{key: value for key, value in state.items() if key not in others}}",
        )
        case.explained.update(names)


def find_zeros(case: Case) -> None:
    """Find that most weights are zero in every number."""
    if case.hopeless or case.loading:
        return
    weights = [name for name in case.fitting() if case.own[name].dim() > 1]
    zeros = [name for name in weights if not case.state[name].any()]
    if 2 * len(zeros) > len(weights):
        case.found(
            "zeros",
            f"{len(zeros)} of {len(weights)} weights are zero in every number, such as {zeros[0]!r}",
            "No training ends so. The file was written before its model was filled, or by a process that does "
            "not hold the weights. It loads, and the model gives one answer for every input. Get another file.",
        )
