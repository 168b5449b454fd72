"""Good loops with a line dropped, doubled, or swapped with the next: never a crash, and what changes is said."""

import ast
import copy
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ftlab.runner import no_trace
from ftlab.training import check_loop
from ftlab.training.linter.arguments import small_model

LOOPS = sorted(path for path in (Path(__file__).parent / "loops").glob("*.py") if path.stem != "__init__")


def blocks(tree):
    """Yield every list of statements, those of the functions and loops too."""
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            if isinstance(found := getattr(node, name, None), list):
                yield found


def mutants(source):
    """Yield the source with one statement dropped, doubled, or swapped with the next one."""
    tree = ast.parse(source)
    for number, block in enumerate(blocks(tree)):
        for place in range(len(block)):
            for change in (_drop, _double, _swap):
                mutant = copy.deepcopy(tree)
                change(list(blocks(mutant))[number], place)
                yield f"{change.__name__} {block[place].lineno}", ast.unparse(mutant)


def _drop(block, place):
    block[place] = ast.copy_location(ast.Pass(), block[place])


def _double(block, place):
    block.insert(place, copy.deepcopy(block[place]))


def _swap(block, place):
    if place + 1 < len(block):
        block[place], block[place + 1] = block[place + 1], block[place]


@pytest.mark.parametrize("path", LOOPS, ids=lambda path: path.stem)
def test_no_mutant_is_too_much_for_reading(path):
    for name, source in list(mutants(path.read_text()))[::11]:
        report = check_loop(source)
        assert all(one.line is None or 1 <= one.line <= source.count("\n") + 1 for one in report.slips), name


STEP = """
def train(model, batches, optimizer, scheduler, max_norm):
    for images, targets in batches:
        optimizer.zero_grad()
        outputs = model(images)
        loss = F.cross_entropy(outputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        scheduler.step()
"""


def result(source):
    """Train a small model with the function, and return its parameters; None if it raises."""
    space = {"F": F, "torch": torch}
    with no_trace(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = small_model()
        model.dropout.p = 0.0
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        batches = [(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])) for _ in range(4)]
        try:
            exec(source, space)
            space["train"](model, batches, optimizer, scheduler, 0.05)
        except Exception:
            return None
    return torch.cat([p.detach().flatten() for p in model.parameters()])


UNSEEN = {"_drop 2": "nothing is left", "_double 2": "it trains twice as long", "_drop 7": "clipping is a choice"}


def test_mutants_that_train_otherwise_are_reported_and_the_others_are_not():
    right = result(STEP)
    missed, false, changed = [], [], 0
    for name, source in mutants(STEP.strip()):
        space = {"F": F, "torch": torch}
        exec(source, space)
        if "train" not in space:
            continue
        found = check_loop(source).kinds + check_loop(space["train"], max_norm=0.05).kinds
        other = result(source)
        if other is None or not torch.allclose(other, right, atol=1e-6):
            changed += 1
            missed += [] if found or name in UNSEEN else [name]
        elif found:
            false.append((name, found))
    assert changed >= 15
    assert not missed
    assert not false
