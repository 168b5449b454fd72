"""Findings about a file as it is, without a model and without torch: its pickle, its devices, its names."""

from collections.abc import Iterable

from .info import CheckpointInfo, Finding, TensorInfo, models_of
from .reading.verdicts import Verdict


def reading(info: CheckpointInfo, keys: tuple[str | int, ...]) -> str:
    """Return the code that reads the tensors of one part: plain PyTorch, where that reads the file."""
    path = str(info.path)
    if info.loads_safely and not any(part.mixed for part in info.parts if part.keys == keys):
        inside = "".join(f"[{key!r}]" for key in keys)
        return f"import torch\n\nstate = torch.load({path!r}, map_location='cpu', weights_only=True){inside}"
    part = ", ".join(map(repr, keys))
    return f"from ftlab import checkpoints\n\nstate = checkpoints.inspect({path!r}).state_dict({part})"


def file_findings(info: CheckpointInfo) -> list[Finding]:
    """Return what is to be said about the file before its tensors are looked at."""
    finders = (
        _folder,
        _sharded,
        _dangerous,
        _whole_model,
        _refused,
        _plain_pickle,
        _protocol,
        _packing,
        _device,
        _slices,
    )
    return [finding for finding in (find(info) for find in finders) if finding]


def _folder(info: CheckpointInfo) -> Finding | None:
    if info.format != "torch distributed":
        return None
    return Finding(
        "dcp-folder",
        "the checkpoint is a folder that torch.distributed.checkpoint wrote, with each tensor in pieces",
        "torch.load reads files only. The fix puts the tensors together. PyTorch's own way writes one file: "
        "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, file).",
    )


_SHARDED = ("torch.distributed.tensor.DTensor", "torch.distributed._tensor.", "torch.distributed._shard.")


def _sharded(info: CheckpointInfo) -> Finding | None:
    names = [one.name for one in info.globals if one.name.startswith(_SHARDED)]
    if not names:
        return None
    return Finding(
        "sharded",
        f"the file has tensors of which each process kept a piece: {names[0]}",
        "Each process of a sharded training (FSDP, tensor parallel) wrote a file of its own, and this is one "
        "of them. It opens only in as many processes as wrote it. There, save with "
        "torch.distributed.checkpoint, or the whole tensors: "
        "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)).",
    )


def _protocol(info: CheckpointInfo) -> Finding | None:
    if not info.instructions or info.format not in ("torch zip", "torch old"):
        return None
    names = ", ".join(sorted(info.instructions)[:3])
    return Finding(
        "protocol",
        f"the pickle has instructions that PyTorch's safe loader does not know: {names}",
        "torch.save was called with a pickle_protocol other than 2, or another program wrote the file. "
        "torch.load refuses it by default. The fix reads only the tensors. Save it anew without pickle_protocol.",
    )


def _plain_pickle(info: CheckpointInfo) -> Finding | None:
    if info.format != "pickle" or not models_of(info) or _refused(info) or _whole_model(info) or info.dangerous:
        return None
    return Finding(
        "pickle",
        "the file was written with pickle.dump, not with torch.save",
        "torch.load refuses it, and pickle.load would run whatever such a file asks for. The fix reads only the "
        "tensors. Save it anew with torch.save.",
    )


def _packing(info: CheckpointInfo) -> Finding | None:
    if info.format == "torch zip" and info.path.suffix == ".safetensors":
        return Finding(
            "suffix",
            "the file is one of torch.save, and its name ends with .safetensors",
            "torch.load goes by the name, and looks for the other format in it. Give it the ending .pt.",
        )
    if not info.outside:
        return None
    return Finding(
        "outside",
        f"the zip file has members where PyTorch expects none, such as {info.outside[0]!r}",
        "It was unpacked and packed again, or something was added to it. All members of a checkpoint are in "
        "one folder, and torch.load refuses other files. The fix reads only the tensors.",
    )


def _dangerous(info: CheckpointInfo) -> Finding | None:
    if not info.dangerous:
        return None
    if info.format == "TorchScript":
        return Finding(
            "dangerous",
            f"the file is a program in TorchScript: {len(info.dangerous)} pieces of code come with it",
            "torch.jit.load would run what is in it, and torch.load refuses it. The fix reads only the "
            "tensors: they have the names of the model that the program was made from. If you do not know who "
            "made it, delete it.",
        )
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
    found = [
        _flat(names),
        _without_values(tensors),
        _wrapped(names),
        _adapters(names),
        _short_numbers(info, keys),
    ]
    return [finding for finding in found if finding]


def _without_model(info: CheckpointInfo) -> Finding:
    held = held_in(info)
    if is_shard(info):
        return Finding("zero-shard", f"the file is a part of a sharded optimizer: {held}", OF_ZERO)
    if any(part.kind == "optimizer" for part in info.parts):
        return Finding("optimizer", f"the file holds the state of an optimizer and no model: {held}", NO_WEIGHTS)
    return Finding("no-model", f"the file holds no state_dict: {held}", NO_NAMES)


def held_in(info: CheckpointInfo) -> str:
    """Return what a file holds, in a few words."""
    found = [f"{'.'.join(map(str, part.keys)) or 'the file'} ({part.kind})" for part in info.parts[:5]]
    return ", ".join(found) or "nothing"


_ZERO = ("single_partition_of_fp32_groups", "fp32_flat_groups", "base_optimizer_state", "partition_count")


def is_shard(info: CheckpointInfo) -> bool:
    """Return whether it is the file of one process of DeepSpeed's ZeRO."""
    names = {str(piece) for part in info.parts for piece in part.keys}
    names |= {piece for tensor in info.tensors for piece in tensor.name.split(".")}
    return not names.isdisjoint(_ZERO)


OF_ZERO = (
    "DeepSpeed's ZeRO writes the weights of all layers as one long row, and each process a piece of it: there "
    "are no names. In the folder above it is zero_to_fp32.py, which makes a state_dict out of the files of "
    "all processes: python zero_to_fp32.py . model.pt"
)
NO_WEIGHTS = "It has momenta and learning rates, and no weights. Look for another file beside it, with the model."
AVERAGE = (
    "One of them is an average over the steps of training (EMA). It is usually the more accurate one to "
    "predict with; the other one is the one to train on with. To take the other, put its name in place."
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


def is_average(keys: Iterable[str | int]) -> bool:
    """Return whether an entry is named like an average of weights."""
    return any(
        word in str(key).lower() for key in keys for word in ("ema", "average", "shadow", "swa", "teacher")
    )


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


def _flat(names: list[str]) -> Finding | None:
    flat = [name for name in names if name.rpartition(".")[2] in ("_flat_param", "flat_param")]
    if not flat:
        return None
    return Finding("flat", f"{len(flat)} tensors are rows of many weights, such as {flat[0]!r}", FLAT)


FLAT = (
    "FullyShardedDataParallel keeps the weights of a block as one long row, and each process has a piece of it "
    "(LOCAL_STATE_DICT). The shapes are not in the file. Load it into the same sharded model, in as many "
    "processes, and save with StateDictType.FULL_STATE_DICT, or with torch.distributed.checkpoint."
)


def _without_values(tensors: Iterable[TensorInfo]) -> Finding | None:
    names = [tensor.name for tensor in tensors if tensor.kind == "meta"]
    if not names:
        return None
    return Finding("no-values", f"{len(names)} tensors have no values, such as {names[0]!r}", NO_VALUES)


NO_VALUES = (
    "The meta device knows names and shapes only: the model was saved before it had any values, as "
    "torch.device('meta') builds it. Get the file that was written after the training."
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


_SHORT = ("float16", "bfloat16", "float8", "float4", "int8", "qint8", "quint8")


def _short_numbers(info: CheckpointInfo, keys: tuple[str, ...]) -> Finding | None:
    short = [t for t in info.tensors if t.part == keys and t.dtype.startswith(_SHORT)]
    if not short:
        return None
    kind = "half-precision" if "float" in short[0].dtype else "quantised"
    return Finding(
        kind,
        f"{len(short)} tensors are {short[0].dtype}",
        "They were rounded when they were saved; a model of float32 gets them as they are, without a word.",
    )
