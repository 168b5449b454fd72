"""Findings about names that differ by a wrapper: `module.`, `_orig_mod.`, `backbone.` and others."""

from collections import Counter
from collections.abc import Iterable

from ftlab.checkpoints.diagnosis import Case
from ftlab.checkpoints.file_findings import AVERAGE, WRAPPERS, is_average, wrapped_by


def best_prefix(state: Iterable[str], own: Iterable[str]) -> tuple[str, int]:
    """Return the beginning that most of the file's names have before a name of the model, and how many.

    Example:
        >>> best_prefix(["module.fc.weight", "module.fc.bias", "epoch"], ["fc.weight", "fc.bias"])
        ('module.', 2)
    """
    own = set(own)
    count: Counter[str] = Counter()
    for name in state:
        pieces = name.split(".")
        for depth in range(len(pieces)):
            if ".".join(pieces[depth:]) in own:
                count[".".join(pieces[:depth]) + "." * bool(depth)] += 1
    if not count:
        return "", 0
    prefix = max(count, key=lambda one: (count[one], -len(one)))
    return prefix, count[prefix]


def find_inner_names(case: Case) -> None:
    """Find names of wrappers in the middle, where a part of a model was compiled or sharded."""
    for infix in ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "module."):
        clean = {name: _without(name, infix) for name in case.state}
        gain = sum(new in case.own for new in clean.values()) - sum(name in case.own for name in case.state)
        inside = [name for name in case.state if f".{infix}" in f".{name}" and not name.startswith(infix)]
        if gain > 0 and inside and 2 * gain >= len(inside) and len(set(clean.values())) == len(clean):
            case.found(
                "inner-prefix",
                f"{len(inside)} names have {infix!r} in the middle, such as {inside[0]!r}",
                f"A part of the model was wrapped when it was saved, by {WRAPPERS[infix]}.",
                f"state = {{\n    '.'.join(piece for piece in key.split('.') if piece != {infix[:-1]!r}): value\n"
                "    for key, value in state.items()\n}",
            )


def _without(name: str, infix: str) -> str:
    return ".".join(piece for piece in name.split(".") if piece != infix[:-1])


def find_prefix(case: Case) -> None:
    """Find a beginning that the file's names have and the model's have not."""
    prefix, count = best_prefix(case.state, case.own)
    if not prefix or count <= sum(name in case.own for name in case.state):
        _find_mixed(case)
        return
    with_it = [name for name in case.state if name.startswith(prefix)]
    others = [name for name in case.state if not name.startswith(prefix)]
    rest = f"; {len(others)} do not have it, such as {others[0]!r}, and stay out" if others else ""
    keep = f"state = {{key.removeprefix({prefix!r}): value for key, value in state.items()"
    step = keep + (f" if key.startswith({prefix!r})}}" if others else "}")
    case.found(
        "prefix",
        f"{len(with_it)} of {len(case.state)} names begin with {prefix!r}, such as {with_it[0]!r}{rest}",
        f"The model was saved inside of something else: {wrapped_by(prefix)}. With strict=False nothing at all "
        "would be loaded, without a word.",
        step,
    )
    averaged = [name for name in others if "." in name and is_average(name.split(".")[:1])]
    if averaged:
        case.found("ema", f"{len(averaged)} of them are an average of the weights: {averaged[0]!r}", AVERAGE)


def _find_mixed(case: Case) -> None:
    """Find a beginning that only some names have: two state_dicts were put together."""
    for prefix in WRAPPERS:
        with_it = [name for name in case.extra if name.startswith(prefix)]
        inner = {name.removeprefix(prefix) for name in with_it}
        if with_it and inner <= set(case.missing):
            case.found(
                "prefix",
                f"{len(with_it)} of {len(case.state)} names begin with {prefix!r}, such as {with_it[0]!r}; "
                "the others do not, and fit",
                f"A part of them was saved inside of something else: {wrapped_by(prefix)}. With strict=False "
                "these would not be loaded, without a word.",
                f"state = {{key.removeprefix({prefix!r}): value for key, value in state.items()}}",
            )


def find_wrapped_model(case: Case) -> None:
    """Find a beginning that the model's names have and the file's have not: the model itself is wrapped."""
    prefix, count = best_prefix(case.own, case.state)
    fitting = sum(name in case.own for name in case.state)
    if not prefix or count <= max(fitting, len(case.state) // 2):  # a few short names, such as 'head', are chance
        return
    case.found(
        "wrapped-model",
        f"the names of the model begin with {prefix!r}, those of the file do not",
        f"The model itself is inside of something: {wrapped_by(prefix)}. Load first and wrap afterwards, or "
        "load into the inner model; the fix gives the names the beginning.",
        f"state = {{{prefix!r} + key: value for key, value in state.items()}}",
    )
