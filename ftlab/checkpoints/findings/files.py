"""Findings about the file as a whole: what its pickle asks for, where its tensors were."""

from ftlab.checkpoints.diagnosis import Finding
from ftlab.checkpoints.info import CheckpointInfo
from ftlab.checkpoints.reading.verdicts import Verdict


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
    found = [_dangerous(info), _whole_model(info), _refused(info), _device(info), _slices(info)]
    return [finding for finding in found if finding]


def _dangerous(info: CheckpointInfo) -> Finding | None:
    if not info.dangerous:
        return None
    names = "; ".join(f"{one.use or one.name} {one.why}" for one in info.dangerous[:3])
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
    if not names or info.dangerous or any(part.about.startswith("a whole ") for part in info.parts):
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
