"""Find a scheme by which the names of a file were changed, and write it down as a rule."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pprint import pformat

from torch import Tensor

from ftlab.checkpoints.diagnosis import Case

ENOUGH = 0.8  # of the model's layers have to find their partner, in order and by shape
COUNTER = "num_batches_tracked"


@dataclass
class Rule:
    """How the names of layers are changed: blocks, the layers inside of a block, and layers on their own."""

    blocks: dict[str, str] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    alone: dict[str, str] = field(default_factory=dict)
    leaves: dict[str, str] = field(default_factory=dict)
    whole: bool = False  # the entries are names of tensors, leaf and all: leaves are not renamed alike everywhere

    @property
    def size(self) -> int:
        """How many entries it takes to write the rule down."""
        return len(self.blocks) + len(self.layers) + len(self.alone)

    def code(self) -> str:
        """Return the rule as code that changes `state`."""
        tables = [
            f"{name} = {pformat(table, width=100, sort_dicts=False)}"
            for name, table in vars(self).items()
            if table and name != "whole"
        ]
        lines = _of_tensors(self) if self.whole else self._of_layers()
        return "\n".join([*tables, "", "", *lines, "", "", _RENAME])

    def _of_layers(self) -> list[str]:
        lines = ["def renamed(key):", '    layer, _, leaf = key.rpartition(".")']
        if any("." not in name for name in self.alone):
            lines += ["    if key in alone:", "        return alone[key]"]
        if self.leaves:
            lines.append("    leaf = leaves.get(leaf, leaf)")
        if self.alone:
            lines += ["    if layer in alone:", '        return f"{alone[layer]}.{leaf}".strip(".")']
        if self.blocks:
            lines += [
                "    for block in blocks:",
                '        inside = layer.removeprefix(block + ".")',
                "        if inside != layer and inside in layers:",
                '            return f"{blocks[block]}.{layers[inside]}.{leaf}"',
            ]
        return [*lines, "    return key"]


_RENAME = "state = {renamed(key): value for key, value in state.items()}"


def _of_tensors(rule: Rule) -> list[str]:
    lines = ["def renamed(key):"]
    if rule.alone:
        lines += ["    if key in alone:", "        return alone[key]"]
    if rule.blocks:
        lines += [
            "    for block in blocks:",
            '        inside = key.removeprefix(block + ".")',
            "        if inside != key and inside in layers:",
            '            return f"{blocks[block]}.{layers[inside]}"',
        ]
    return [*lines, "    return key"]


def find_renaming(case: Case) -> None:
    """Pair the layers of file and model in their order by the shapes of their tensors."""
    if 2 * sum(name in case.own for name in case.state) > len(case.own) or not case.state:
        return
    theirs, ours = _layers(case.state), _layers(case.own)
    pairs = _pairs(theirs, ours)
    if len(pairs) < ENOUGH * len(ours) or not any(old != new for old, new in pairs):
        return
    rule = _with_leaves(case, pairs, theirs, ours)
    once = _shapes_that_occur_once(theirs, pairs)
    old, new = next(((old, new) for old, new in pairs if old != new))
    case.found(
        "renamed",
        f"{len(pairs)} of the model's {len(ours)} layers are in the file under other names, in the same order "
        f"and with the same shapes: {old!r} is {new!r}",
        f"The same network was written by another program, with other names. {once} of the pairs have shapes "
        "that no other layer has; the rest are paired by their order. Check the accuracy before you rely on it.",
        rule.code(),
    )


def find_renamed_layers(case: Case) -> None:
    """Find a few layers under other names in a file that fits but for them: most often it is the head."""
    missing = {name: case.own[name] for name in case.missing}
    theirs, ours = _layers({name: case.state[name] for name in case.extra}), _layers(missing)
    pairs = _pairs(theirs, ours)
    if (
        not pairs
        or len(pairs) != len(ours)
        or len(pairs) != len(theirs)
        or len(ours) > len(_layers(case.own)) // 4
    ):
        return
    rule = Rule(alone=dict(_tensor_pairs(case, pairs, theirs, ours)), whole=True)
    named = ", ".join(f"{old!r} is {new!r}" for old, new in pairs[:3])
    case.found(
        "renamed",
        f"{len(pairs)} layers have another name in the file, and all others fit: {named}",
        "What is left over on both sides has the same kinds of shapes in the same order, so it is taken for "
        "the same layers. Check the accuracy before you rely on it.",
        rule.code(),
    )


Layers = dict[str, dict[str, tuple[int, ...]]]


def _layers(tensors: Mapping[str, Tensor]) -> Layers:
    """Return the tensors by layer, without the counters of batch norms, which old files do not have."""
    layers: Layers = defaultdict(dict)
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        if leaf != COUNTER and isinstance(tensor, Tensor):
            layers[layer if layer else name][leaf if layer else ""] = tuple(tensor.shape)
    return dict(layers)


def _pairs(theirs: Layers, ours: Layers) -> list[tuple[str, str]]:
    """Return layers that belong together: the same shapes, in the same order."""
    names, others = list(theirs), list(ours)
    one, other = ([tuple(layer.values()) for layer in layers.values()] for layers in (theirs, ours))
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    found = []
    for tag, start, end, first, last in matcher.get_opcodes():
        if tag == "equal":
            found += list(zip(names[start:end], others[first:last], strict=True))
        elif tag == "replace" and end - start == last - first:
            middle = zip(names[start:end], others[first:last], strict=True)
            found += [(a, b) for a, b in middle if _alike(theirs[a], ours[b])]
    return found + _by_shape(found, theirs, ours)


def _by_shape(found: list[tuple[str, str]], theirs: Layers, ours: Layers) -> list[tuple[str, str]]:
    """Pair what is left over, in whatever order, where only one layer on each side has these shapes."""
    taken = {name for pair in found for name in pair}
    left: list[dict[tuple, list[str]]] = []
    for layers in (theirs, ours):
        names: dict[tuple, list[str]] = defaultdict(list)
        for name, layer in layers.items():
            if name not in taken:
                names[tuple(layer.values())].append(name)
        left.append(names)
    return [
        (old[0], left[1][key][0]) for key, old in left[0].items() if len(old) == len(left[1].get(key, [])) == 1
    ]


def _alike(one: Mapping[str, tuple], other: Mapping[str, tuple]) -> bool:
    """Return whether two layers differ only in the number of outputs: two heads."""
    return len(one) == len(other) and all(
        len(a) == len(b) and a[1:] == b[1:] for a, b in zip(one.values(), other.values(), strict=True)
    )


def _rule(pairs: list[tuple[str, str]]) -> Rule:
    """Return the shortest rule: try how many pieces of a name are the block."""
    deepest = max(old.count(".") for old, _ in pairs)
    return min((_split(pairs, depth) for depth in range(deepest + 1)), key=lambda rule: rule.size)


def _split(pairs: list[tuple[str, str]], depth: int) -> Rule:
    """Return the rule in which the first `depth` pieces of a name are its block."""
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for old, new in pairs:
        pieces = old.split(".")
        groups[".".join(pieces[:depth]) if len(pieces) > depth else ""].append((old, new))
    rule = Rule(alone=dict(groups.pop("", [])))
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for block, members in groups.items():
        rule.blocks[block] = _common([new for _, new in members])
        for old, new in members:
            votes[old.removeprefix(block + ".")][_inside(new, rule.blocks[block])] += 1
    rule.layers = {inside: count.most_common(1)[0][0] for inside, count in votes.items()}
    for block, members in groups.items():
        for old, new in members:
            said = f"{rule.blocks[block]}.{rule.layers[old.removeprefix(block + '.')]}"
            if said != new:
                rule.alone[old] = new
    return rule


def _common(names: list[str]) -> str:
    """Return the pieces that all names begin with; of a single name all but the last piece."""
    split = [name.split(".") for name in names]
    shared = 0
    while all(len(pieces) > shared + 1 for pieces in split) and len({pieces[shared] for pieces in split}) == 1:
        shared += 1
    return ".".join(split[0][:shared])


def _inside(name: str, block: str) -> str:
    return name.removeprefix(block + ".") if block else name


def _with_leaves(case: Case, pairs: list[tuple[str, str]], theirs: Layers, ours: Layers) -> Rule:
    """Return the rule for layers, with leaves such as gamma for weight; where leaves differ, that for tensors."""
    said: dict[str, set[str]] = defaultdict(set)
    for old, new in pairs:
        for a, b in zip(theirs[old], ours[new], strict=True):
            said[a].add(b)
    if all(len(names) == 1 for names in said.values()) and said.get("", {""}) == {""}:
        rule = _rule(pairs)
        rule.leaves = {a: b for a, (b,) in said.items() if a != b}
        return rule
    rule = _rule(_tensor_pairs(case, pairs, theirs, ours))
    rule.whole = True
    return rule


def _tensor_pairs(
    case: Case, pairs: list[tuple[str, str]], theirs: Layers, ours: Layers
) -> list[tuple[str, str]]:
    """Return the pairs of tensors of pairs of layers."""
    found = []
    for old, new in pairs:
        leaves = list(zip(theirs[old], ours[new], strict=True))
        if f"{old}.{COUNTER}" in case.state:
            leaves.append((COUNTER, COUNTER))
        found += [(f"{old}.{a}".strip("."), f"{new}.{b}".strip(".")) for a, b in leaves]
    return found


def _shapes_that_occur_once(theirs: Layers, pairs: list[tuple[str, str]]) -> int:
    count = Counter(tuple(layer.values()) for layer in theirs.values())
    return sum(count[tuple(theirs[old].values())] == 1 for old, _ in pairs)
