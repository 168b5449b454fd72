"""check_loop on broken loops: each slip is named, in the right line, and by reading or by watching as it says."""

from pathlib import Path

import pytest
import torch

from ftlab.training import check_loop
from ftlab.training.linter import KNOWN
from tests.test_training_linter_read import SLIPS
from tests.test_training_linter_styles import SLIPS as STYLES
from tests.test_training_linter_watched import WATCHED

LOOPS = Path(__file__).parent / "loops"

_CLIPPED = """
            # the gradients as they would be without the scaler
            scaler.unscale_(optimizer)
            clip_grad_norm_(model.parameters(), max_norm)

            # steps only if all gradients are finite
            scaler.step(optimizer)
"""
# kind, loop, what is there, what stands there instead, a text in the line that is named
BROKEN = [
    ("no zero_grad", "quickstart", "        optimizer.zero_grad()\n", "", "loss.backward()"),
    ("no zero_grad", "gan", "            netD.zero_grad()\n", "", "errD_real.backward()"),
    (
        "no zero_grad",
        "blitz",
        "        for i, data in enumerate(trainloader, 0):\n            inputs, labels = data\n"
        "            optimizer.zero_grad()\n",
        "        optimizer.zero_grad()\n        for i, data in enumerate(trainloader, 0):\n"
        "            inputs, labels = data\n",
        "            loss.backward()",
    ),
    (
        "zero_grad between backward and step",
        "quickstart",
        "        optimizer.step()\n        optimizer.zero_grad()\n",
        "        optimizer.zero_grad()\n        optimizer.step()\n",
        "        optimizer.zero_grad()",
    ),
    ("no backward", "quickstart", "        loss.backward()\n", "", "optimizer.step()"),
    (
        "step before backward",
        "quickstart",
        "        loss.backward()\n        optimizer.step()\n",
        "        optimizer.step()\n        loss.backward()\n",
        "optimizer.step()",
    ),
    ("no step", "quickstart", "        optimizer.step()\n", "", "loss.backward()"),
    ("not called", "quickstart", "optimizer.step()", "optimizer.step", "optimizer.step"),
    ("not called", "quickstart", "model.eval()", "model.eval", "model.eval"),
    ("retain_graph", "quickstart", "loss.backward()", "loss.backward(retain_graph=True)", "loss.backward("),
    (
        "clip after step",
        "quickstart",
        "        optimizer.step()\n",
        "        optimizer.step()\n        nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n",
        "clip_grad_norm_",
    ),
    (
        "clip before backward",
        "quickstart",
        "        loss.backward()\n",
        "        nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n        loss.backward()\n",
        "clip_grad_norm_",
    ),
    ("clip before unscale", "mixed", "            scaler.unscale_(optimizer)\n", "", "clip_grad_norm_(model"),
    (
        "clip before unscale",
        "mixed",
        "            scaler.unscale_(optimizer)\n            clip_grad_norm_(model.parameters(), max_norm)\n",
        "            clip_grad_norm_(model.parameters(), max_norm)\n            scaler.unscale_(optimizer)\n",
        "clip_grad_norm_(model",
    ),
    ("clip before unscale", "references", "                scaler.unscale_(optimizer)\n", "", "nn.utils.clip"),
    (
        "clip part by part",
        "mixed",
        "            clip_grad_norm_(model.parameters(), max_norm)\n",
        "            for layer in model.children():\n"
        "                clip_grad_norm_(layer.parameters(), max_norm)\n",
        "clip_grad_norm_(layer",
    ),
    (
        "clip of other parameters",
        "gan",
        "            optimizerG.step()\n",
        "            nn.utils.clip_grad_norm_(netD.parameters(), 1.0)\n            optimizerG.step()\n",
        "clip_grad_norm_(netD",
    ),
    (
        "exhausted generator",
        "mixed",
        "            clip_grad_norm_(model.parameters(), max_norm)\n",
        "            params = model.parameters()\n            clip_grad_norm_(params, max_norm)\n"
        "            clip_grad_norm_(params, max_norm)\n",
        "clip_grad_norm_(params",
    ),
    (
        "scheduler before optimizer",
        "transfer",
        "    for epoch in range(num_epochs):\n",
        "    for epoch in range(num_epochs):\n        scheduler.step()\n",
        "        scheduler.step()",
    ),
    (
        "scheduler never stepped",
        "transfer",
        '            if phase == "train":\n                scheduler.step()\n',
        "",
        "def train_model(",
    ),
    ("scheduler never stepped", "references", "        lr_scheduler.step()\n", "", "lr_scheduler = "),
    (
        "accumulation not divided",
        "accumulating",
        "            loss /= accum_steps",
        "            pass",
        "loss.backward()",
    ),
    (
        "accumulation not divided",
        "micro",
        "                loss = loss / gradient_accumulation_steps\n",
        "",
        ".backward()",
    ),
    (
        "last window lost",
        "accumulating",
        "need_update = last_batch or (batch_idx + 1) % accum_steps == 0",
        "need_update = (batch_idx + 1) % accum_steps == 0",
        "need_update = (batch",
    ),
    (
        "total keeps graphs",
        "transfer",
        "loss.item() * inputs.size(0)",
        "loss * inputs.size(0)",
        "running_loss +=",
    ),
    (
        "total keeps graphs",
        "blitz",
        "running_loss += loss.item()",
        "running_loss += loss",
        "running_loss += loss",
    ),
    ("total keeps graphs", "gan", "G_losses.append(errG.item())", "G_losses.append(errG)", "G_losses.append"),
    (
        "number instead of loss",
        "blitz",
        "loss = criterion(outputs, labels)",
        "loss = criterion(outputs, labels).item()",
        "labels).item()",
    ),
    (
        "graph cut by detach",
        "blitz",
        "outputs = net(inputs)\n            loss",
        "outputs = net(inputs).detach()\n            loss",
        "net(inputs).detach()",
    ),
    (
        "graph cut by detach",
        "blitz",
        "loss = criterion(outputs, labels)",
        "loss = criterion(outputs.data, labels)",
        "outputs.data",
    ),
    (
        "no_grad around the forward",
        "blitz",
        "            outputs = net(inputs)\n            loss",
        "            with torch.no_grad():\n                outputs = net(inputs)\n            loss",
        "                outputs = net(inputs)",
    ),
    ("eval left on", "micro", "    model.train()\n    return out", "    return out", "model.eval()"),
    (
        "validation without no_grad",
        "quickstart",
        "    with torch.no_grad():\n",
        "    if True:\n",
        "pred = model(X)",
    ),
    (
        "validation without no_grad",
        "references",
        "    with torch.inference_mode():\n",
        "    if True:\n",
        "output = model(image)",
    ),
    (
        "optimizer of other parameters",
        "blitz",
        "    optimizer = optim.SGD(net.",
        "    other = nn.Linear(2, 2)\n    optimizer = optim.SGD(other.",
        "optimizer = optim.SGD(other",
    ),
    ("no update", "mixed", "            scaler.update()\n", "", "scaler.step(optimizer)"),
    ("loss not scaled", "mixed", "scaler.scale(loss).backward()", "loss.backward()", "loss.backward()"),
    ("scaled gradients stepped", "mixed", _CLIPPED, "            optimizer.step()\n", "optimizer.step()"),
    (
        "backward in autocast",
        "mixed",
        "            scaler.scale(loss).backward()\n",
        "                scaler.scale(loss).backward()\n",
        ".backward()",
    ),
    (
        "empty_cache in the loop",
        "blitz",
        "            optimizer.step()\n",
        "            optimizer.step()\n            torch.cuda.empty_cache()\n",
        "empty_cache",
    ),
    (
        "best is a live view",
        "transfer",
        "                best_weights = copy.deepcopy(model.state_dict())",
        "                best_weights = model.state_dict()",
        "                best_weights = model.state_dict()",
    ),
    (
        "softmax before cross_entropy",
        "micro",
        "                logits = model(X)\n                loss = F.cross",
        "                logits = model(X).softmax(1)\n                loss = F.cross",
        "logits = model(X).softmax(1)",
    ),
    (
        "squeeze without a dimension",
        "micro",
        "F.cross_entropy(logits, Y)\n                loss",
        "F.cross_entropy(logits.squeeze(), Y)\n                loss",
        "squeeze()",
    ),
    (
        "one_hot without num_classes",
        "micro",
        "F.cross_entropy(logits, Y)\n                loss",
        "F.cross_entropy(logits, F.one_hot(Y).float())\n                loss",
        "one_hot(Y)",
    ),
    (
        "one_hot as integers",
        "micro",
        "F.cross_entropy(logits, Y)\n                loss",
        "F.cross_entropy(logits, F.one_hot(Y, 3))\n                loss",
        "one_hot(Y, 3)",
    ),
]


def broken(loop, there, instead):
    source = (LOOPS / f"{loop}.py").read_text()
    assert source.count(there) >= 1, f"{there!r} is not in {loop}.py"
    return source.replace(there, instead, 1)


@pytest.mark.parametrize(
    ("kind", "loop", "there", "instead", "line"), BROKEN, ids=[f"{b[1]}-{b[0]}" for b in BROKEN]
)
def test_a_broken_loop_is_named_in_its_line(kind, loop, there, instead, line):
    source = broken(loop, there, instead)
    report = check_loop(source)
    assert not report
    found = [one for one in report.slips if one.kind == kind]
    assert found, f"{kind} is not among {report.kinds}"
    if line:
        lines = source.splitlines()
        assert any(line in lines[one.line - 1] for one in found), (line, [lines[one.line - 1] for one in found])
    assert report.kinds == [kind], report


def test_every_known_slip_has_an_answer_and_a_test():
    for why, repair in KNOWN.values():
        assert why
        assert repair
    styles = {kind for *_, kind in STYLES} | {"unfrozen without an optimizer"}
    tested = (
        styles
        | {kind for kind, *_ in BROKEN}
        | {kind.strip() for kind in SLIPS}
        | {kind for _, kind, *_ in WATCHED}
    )
    assert set(KNOWN) - tested == {"raises", "does not end", "syntax error"}  # in the tests of the run


def test_what_the_reasons_say_is_so():
    model = torch.nn.Linear(2, 2)
    optimizer, weight = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model.weight
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    model.to(torch.float64)
    assert model.weight is weight  # .to keeps the objects, and not what the optimizer remembers
    assert optimizer.state[weight]["momentum_buffer"].dtype == torch.float32

    twice = torch.sigmoid(torch.sigmoid(torch.tensor([-1000.0, 1000.0])))
    assert twice.tolist() == pytest.approx([0.5, 0.731], abs=1e-3)

    model, scaler = torch.nn.Linear(2, 2), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler.scale(model(torch.ones(1, 2)).sum()).backward()
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="already been called since the last update"):
        scaler.step(optimizer)
