"""Findings about parts that are no weights of the model: low-rank adapters and quantised tensors."""

import re

import torch
from torch import Tensor

from ftlab.checkpoints.diagnosis import Case

_LORA = re.compile(r"^(.*)\.lora_(A|B|down|up)(\.\w+)?\.weight$|^(.*)\.lora_(A|B)$")
_PACKED = "._packed_params._packed_params."
_QUANTISED = (".scale", ".zero_point", "_packed_params", ".absmax", ".quant_map", ".SCB", ".qweight", ".qzeros")


def find_lora(case: Case) -> None:
    """Find low-rank adapters; merge them into the weights that they belong to."""
    parts = [name for name in case.state if ".lora_" in name]
    if not parts:
        return
    base = [name for name in case.state if ".base_layer." in name]
    has_base = bool(base) or 2 * len(parts) < len(case.state)
    names = "with the weights that they change" if has_base else "without the weights that they change"
    case.found(
        "lora",
        f"{len(parts)} tensors are low-rank adapters (LoRA), {names}, such as {parts[0]!r}",
        "An adapter is a small correction to a weight: B @ A, times alpha / r. The fix adds it to the weights"
        + (" in the file" if has_base else " that the model has now, which have to be those it was trained on")
        + ". The factor is in the file adapter_config.json beside it; the fix takes 1.",
        _MERGE,
    )
    if not has_base:
        case.explained.update(case.missing)


_MERGE = """\
factor = 1.0  # lora_alpha / r of adapter_config.json
plain = {key.replace(".base_layer.", "."): value for key, value in state.items() if ".lora_" not in key}
own = model.state_dict()
for key, up in state.items():
    if ".lora_B" in key or ".lora_up" in key:
        down = state[key.replace("lora_B", "lora_A").replace("lora_up", "lora_down")]
        name = key.split(".lora_")[0] + ".weight"
        name = next((known for known in (name, *own) if known in own and f".{name}".endswith(f".{known}")), name)
        weight = plain.get(name, own.get(name))
        if weight is not None and weight.dim() == 2:
            plain[name] = weight + factor * (up.to(weight) @ down.to(weight))
state = plain"""


def find_quantised(case: Case) -> None:
    """Find numbers of 8 bits and less with their scales."""
    whole = [name for name, tensor in case.state.items() if isinstance(tensor, Tensor) and tensor.is_quantized]
    marks = [name for name in case.state if name.endswith(_QUANTISED)]
    if whole:
        case.found(
            "quantised",
            f"{len(whole)} tensors are quantised to {case.state[whole[0]].dtype}, such as {whole[0]!r}",
            f"They are whole numbers with a scale. {_ROUNDED}",
            _DEQUANTISED + (_UNPACKED if any(_PACKED in name for name in whole) else ""),
        )
    elif _eight_bits(case):
        names = _eight_bits(case)
        case.found(
            "quantised",
            f"{len(names)} weights are whole numbers of 8 bits with a scale beside them, such as {names[0]!r}",
            f"{_ROUNDED} This is how bitsandbytes writes them: a row times its SCB, by 127.",
            _EIGHT_BITS,
        )
    elif marks and any(not case.state[name].is_floating_point() for name in case.extra):
        case.found(
            "quantised",
            f"{len(marks)} tensors are scales of quantised weights, such as {marks[0]!r}",
            "The weights are packed into whole numbers by a library for quantised models, and only that library "
            "unpacks them. Get the file with the ordinary weights.",
        )


def _eight_bits(case: Case) -> list[str]:
    return [
        name
        for name, value in case.state.items()
        if name.endswith(".weight")
        and value.dtype is torch.int8
        and name.removesuffix("weight") + "SCB" in case.state
    ]


_ROUNDED = (
    "The fix turns them into ordinary numbers; what was rounded away stays lost, so the file is no good start "
    "for training."
)
_DEQUANTISED = (
    "state = {key: value.dequantize() if value.is_quantized else value for key, value in state.items()}"
)
_UNPACKED = """
names = {"0": "weight", "1": "bias"}  # what is packed of a layer, in this order
state = {
    f"{layer}.{names[last]}" if layer != key else key: value
    for key, value in state.items()
    for layer, _, last in [key.partition("._packed_params._packed_params.")]
    if not key.endswith((".scale", ".zero_point"))
}"""
_EIGHT_BITS = """\
scales = {key.removesuffix("SCB") + "weight": state[key] for key in state if key.endswith(".SCB")}
state = {
    key: value * scales[key].float()[:, None] / 127 if key in scales else value
    for key, value in state.items()
    if not key.endswith((".SCB", ".weight_format"))
}"""
