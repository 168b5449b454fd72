"""Findings about a file as it is, without a model and without torch: its pickle, its devices, its names."""

from collections.abc import Iterable

from .info import CheckpointInfo, Finding, models_of
from .reading.verdicts import Verdict


def reading(info: CheckpointInfo, keys: tuple[str, ...]) -> str:
    """Return the code that reads the tensors of one part: plain PyTorch, where that reads the file."""
    path = str(info.path)
    if info.loads_safely:
        inside = "".join(f"[{key!r}]" for key in keys)
        return f"import torch\n\nstate = torch.load({path!r}, map_location='cpu', weights_only=True){inside}"
    part = ", ".join(map(repr, keys))
    return f"from ftlab import checkpoints\n\nstate = checkpoints.inspect({path!r}).state_dict({part})"


def file_findings(info: CheckpointInfo) -> list[Finding]:
    """Return what is to be said about the file before its tensors are looked at."""
    found = [_folder(info), _dangerous(info), _whole_model(info), _refused(info), _device(info), _slices(info)]
    return [finding for finding in found if finding]


def _folder(info: CheckpointInfo) -> Finding | None:
    if info.format != "torch distributed":
        return None
    return Finding(
        "dcp-folder",
        "the checkpoint is a folder that torch.distributed.checkpoint wrote, with each tensor in pieces",
        "torch.load reads files only. The fix puts the tensors together. PyTorch's own way writes one file: "
        "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, file).",
    )


def _dangerous(info: CheckpointInfo) -> Finding | None:
    if not info.dangerous:
        return None
    names = "; ".join(f"{one.use or one.name}, which {one.why}" for one in info.dangerous[:3])
    return Finding(
        "dangerous",
        f"the file asks for {names}",
        "Loading it with weights_only=False would run this. The fix reads only the tensors, by their places in "
        "the file. If you do not know who made the file, delete it.",
    )


def _whole_model(info: CheckpointInfo) -> Finding | None:
    whole = [part.about for part in info.parts if part.about.startswith("a whole ")]
    if not whole:
        return None
    return Finding(
        "whole-model",
        f"the file holds {whole[0]}, saved with torch.save(model, ...)",
        "Such a file names the classes of the program that saved it, so torch.load refuses it, and it breaks "
        "when a class is moved. The fix reads only the tensors. Save model.state_dict() from now on.",
    )


def _refused(info: CheckpointInfo) -> Finding | None:
    names = [one.name for one in info.globals if one.verdict is Verdict.DATA]
    if (
        not names
        or info.format == "torch distributed"
        or info.dangerous
        or any(part.about.startswith("a whole ") for part in info.parts)
    ):
        return None
    return Finding(
        "metadata",
        f"beside the tensors the file has {', '.join(names[:4])}",
        "These are harmless, but torch.load accepts plain numbers, texts and tensors only. The fix reads only "
        "the tensors. When you save, turn them into numbers and texts first: float(x), str(path), vars(args).",
    )


def _device(info: CheckpointInfo) -> Finding | None:
    devices = sorted({tensor.device for tensor in info.tensors} - {"cpu", "meta", "numpy"})
    if not devices:
        return None
    count = sum(tensor.device in devices for tensor in info.tensors)
    return Finding(
        "device",
        f"{count:,} tensors were saved on {', '.join(devices)}",
        "torch.load puts them there again, and fails on a machine that has no such device; with several "
        "processes all of them load onto the same one. map_location='cpu' reads them anywhere.",
    )


def _slices(info: CheckpointInfo) -> Finding | None:
    used: dict[str, int] = {}
    for tensor in info.tensors:
        if tensor.storage in info.places:
            used[tensor.storage] = used.get(tensor.storage, 0) + tensor.bytes
    waste = {key: info.places[key].size - size for key, size in used.items()}
    total = sum(size for size in waste.values() if size > 0)
    if total < 1 << 16 or total < info.size // 4:
        return None
    key = max(waste, key=waste.__getitem__)
    name = next(tensor.key for tensor in info.tensors if tensor.storage == key)
    return Finding(
        "slice",
        f"{name!r} is a slice of a tensor that is stored whole; {total:,} of {info.size:,} bytes are of no use",
        "torch.save writes the whole memory that a view looks at. It loads rightly, and takes that room on the "
        "disk and in memory. Save tensor.clone() instead of the slice.",
    )


def name_findings(info: CheckpointInfo) -> list[Finding]:
    """Return what the names and types alone say, where there is no model to compare them with."""
    models = models_of(info)
    if not models:
        return [_without_model(info)]
    keys, tensors = next(iter(models.items()))
    names = [tensor.name for tensor in tensors]
    found = [_wrapped(names), _adapters(names), _short_numbers(info, keys)]
    return [finding for finding in found if finding]


def _without_model(info: CheckpointInfo) -> Finding:
    held = ", ".join(f"{'.'.join(part.keys) or 'the file'} ({part.kind})" for part in info.parts[:5]) or "nothing"
    if any(part.kind == "optimizer" for part in info.parts):
        return Finding("optimizer", f"the file holds the state of an optimizer and no model: {held}", NO_WEIGHTS)
    return Finding("no-model", f"the file holds no state_dict: {held}", NO_NAMES)


NO_WEIGHTS = "It has momenta and learning rates, and no weights. Look for another file beside it, with the model."
AVERAGE = (
    "One of them is an average over the steps of training (EMA). It is usually the more accurate one to predict "
    "with; the other one is the one to train on with. To take the other, put its name in place."
)
NO_NAMES = "There are no named tensors in it that could belong to a model."
WRAPPERS = {
    "module.": "nn.DataParallel or DistributedDataParallel, or an averaged model",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "model.": "a trainer such as Lightning's, which keeps the model in self.model",
    "backbone.": "a larger model, which has this one as its backbone",
}


def is_average(keys: Iterable[str]) -> bool:
    """Return whether an entry is named like an average of weights."""
    return any(word in key.lower() for key in keys for word in ("ema", "average", "shadow", "swa", "teacher"))


def wrapped_by(prefix: str) -> str:
    """Return what puts such a beginning before names."""
    known = [text for wrapper, text in WRAPPERS.items() if f".{wrapper}" in f".{prefix}"]
    return "; ".join(known) or f"an object that calls it {prefix[:-1]!r}"


def _wrapped(names: list[str]) -> Finding | None:
    prefix = ""
    while names:
        more = [one for one in WRAPPERS if all(name.startswith(prefix + one) for name in names)]
        if not more:
            break
        prefix += more[0]
    if not prefix:
        return None
    return Finding(
        "prefix",
        f"all {len(names)} names begin with {prefix!r}, such as {names[0]!r}",
        f"The model was saved inside of something else: {wrapped_by(prefix)}. The model itself has other names.",
        f"state = {{key.removeprefix({prefix!r}): value for key, value in state.items()}}",
    )


def _adapters(names: list[str]) -> Finding | None:
    parts = [name for name in names if ".lora_" in name]
    if not parts:
        return None
    return Finding(
        "lora",
        f"{len(parts)} tensors are low-rank adapters (LoRA), such as {parts[0]!r}",
        "An adapter is a small correction to the weights of a model. Name the model, and the fix merges them.",
    )


def _short_numbers(info: CheckpointInfo, keys: tuple[str, ...]) -> Finding | None:
    short = [t for t in info.tensors if t.part == keys and t.dtype in ("float16", "bfloat16", "int8", "qint8")]
    if not short:
        return None
    kind = "half-precision" if "float" in short[0].dtype else "quantised"
    return Finding(
        kind,
        f"{len(short)} tensors are {short[0].dtype}",
        "They were rounded when they were saved; a model of float32 gets them as they are, without a word.",
    )
