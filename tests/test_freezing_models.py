"""The pitfalls of freezing on real architectures: the audit names each one rightly, alone and together."""

from collections import defaultdict

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import get_model
from torchvision.ops import FrozenBatchNorm2d

import ftlab.pretrained  # noqa: F401 - makes efficientnet_lite0 known to torchvision
from ftlab.freezing import audit, freeze, select, unfreeze


class Bench:
    """A model with a name for each part that the pitfalls need; it is shared, as an audit leaves it as it was."""

    def __init__(self, name, *, early, middle, late, head, size=64, **options):
        torch.manual_seed(0)
        self.name = name
        self.model = get_model(name, weights=None, num_classes=4, **options).train()
        self.early, self.middle, self.late, self.head = early, middle, late, head
        self.x, self.y = torch.randn(2, 3, size, size), torch.tensor([0, 1])
        nn.init.normal_(self.part(head).weight, std=0.1)  # a new ViT's head is zero: no gradient comes past it
        self._fit_statistics()
        self.state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def _fit_statistics(self):
        """Let the running statistics fit the images, as in a pretrained model."""
        norms = [module for module in self.model.modules() if isinstance(module, nn.BatchNorm2d)]
        momentum = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            self.model(self.x * 1.1 + 0.1)
        for norm, old in zip(norms, momentum, strict=True):
            norm.momentum = old

    def part(self, name):
        return self.model.get_submodule(name)

    def below(self, *names):
        """Return the names of the parameters under these parts."""
        return set(select(self.model, *names))

    def step(self, optimizer, set_to_none=True):
        def step():
            self.model.train()
            optimizer.zero_grad(set_to_none=set_to_none)
            F.cross_entropy(self.model(self.x), self.y).backward()
            optimizer.step()

        return step


BENCHES = {
    "resnet18": {"early": "layer1.0", "middle": "layer2", "late": "layer4.1", "head": "fc"},
    "vit_b_16": {
        "early": "encoder.layers.encoder_layer_0",
        "middle": "encoder.layers.encoder_layer_5",
        "late": "encoder.layers.encoder_layer_11",
        "head": "heads.head",
        "image_size": 32,
        "size": 32,
    },
    "mobilenet_v3_small": {
        "early": "features.2",
        "middle": "features.6",
        "late": "features.12",
        "head": "classifier.3",
    },
    "efficientnet_lite0": {
        "early": "features.1",
        "middle": "features.4",
        "late": "features.8",
        "head": "classifier.1",
    },
    "densenet121": {
        "early": "features.denseblock1.denselayer1",
        "middle": "features.denseblock2",
        "late": "features.denseblock4.denselayer16",
        "head": "classifier",
    },
}


@pytest.fixture(scope="module", params=BENCHES)
def shared(request):
    return Bench(request.param, **BENCHES[request.param])


@pytest.fixture
def bench(shared):
    """Give the shared model as it was made, everything trainable and without gradients."""
    shared.model.load_state_dict(shared.state)
    unfreeze(shared.model)
    shared.model.zero_grad(set_to_none=True)
    return shared


def sgd(bench, *parts, **options):
    parameters = {id(p): p for part in parts for p in bench.part(part).parameters()}
    return torch.optim.SGD(list(parameters.values()), lr=0.1, **options)


def reasons(found, names):
    """Return the reasons of these tensors as a set of (verdict, reason)."""
    return {(t.verdict, t.reason) for t in found.tensors if t.name in names}


def buffers(bench):
    return {name for name, _ in bench.model.named_buffers()}


def test_1_and_3_flags_do_not_stop_batch_norm_and_eval_mode_does(bench):
    freeze(bench.model, batch_norm="train")
    unfreeze(bench.model, bench.head)
    step = bench.step(sgd(bench, bench.head))
    found = audit(bench.model, step)
    assert set(found.moved) == buffers(bench) | bench.below(bench.head)
    by_end = defaultdict(set)
    for name, reason in found.leaks.items():
        by_end[name.rpartition(".")[2]].add(reason)
    if buffers(bench):  # a ViT has none
        assert by_end == {
            "running_mean": {"batch norm statistics"},
            "running_var": {"batch norm statistics"},
            "num_batches_tracked": {"a counter"},
        }

    def forward_only():
        with torch.no_grad():
            bench.model(bench.x)

    assert audit(bench.model, forward_only).leaks == found.leaks
    freeze(bench.model, lambda name, parameter: not name.startswith(bench.head + "."))
    found = audit(bench.model, step, steps=2)
    assert set(found.moved) == bench.below(bench.head)
    assert found.leaks == {}


OLD = "left from before the freeze"
LEFTOVERS = {
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), f"momentum {OLD}"),
    "decay": (lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1), "weight decay"),
    "Adam": (lambda p: torch.optim.Adam(p, lr=0.1), f"Adam's moments {OLD}"),
    "all": (lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1), f"Adam's moments {OLD}; weight decay"),
}


def test_11_frozen_after_training_with_gradients_of_zeros_and_norms_that_drift(bench):
    for kind in LEFTOVERS if bench.name == "resnet18" else ["all"]:
        unfreeze(bench.model)
        check_leftovers(bench, *LEFTOVERS[kind])


def check_leftovers(bench, make, reason):
    part = bench.part(bench.late)
    optimizer = make([*part.parameters(), *bench.part(bench.head).parameters()])
    for parameter in part.parameters():  # fresh norms have a bias of zeros, which decay cannot move
        parameter.data.add_(0.01)
    step = bench.step(optimizer, set_to_none=False)
    step()
    freeze(bench.model, lambda name, parameter: not name.startswith((bench.late, bench.head)))
    part.requires_grad_(False)
    found = audit(bench.model, step)
    assert reasons(found, bench.below(bench.late)) == {("moved", reason)}
    inside = {name for name in buffers(bench) if name.startswith(bench.late)}
    assert set(found.leaks) == bench.below(bench.late) | inside
    assert {reason for _, reason in reasons(found, inside)} <= {"batch norm statistics", "a counter"}
    freeze(bench.model, bench.late)
    assert audit(bench.model, step).leaks == {}


def test_12_frozen_between_backward_and_step(bench):
    optimizer = sgd(bench, bench.late, bench.head)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(bench.model(bench.x), bench.y).backward()
        bench.part(bench.late).requires_grad_(False)
        optimizer.step()

    found = audit(bench.model, step)
    assert {reason for name, reason in found.leaks.items() if name in bench.below(bench.late)} == {
        f"a gradient {OLD}"
    }
    assert reasons(found, bench.below(bench.head)) == {("moved", "gradient")}


def test_13_everything_frozen_the_head_too(bench):
    optimizer = sgd(bench, bench.head)
    freeze(bench.model)
    with pytest.raises(RuntimeError) as caught:
        audit(bench.model, bench.step(optimizer))
    assert caught.value.__notes__[0].endswith(f"unfreeze the head, which is probably {bench.head!r}")


def test_14_head_replaced_after_the_optimizer_was_built(bench):
    freeze(bench.model)
    unfreeze(bench.model, bench.head)
    optimizer = sgd(bench, bench.head)
    around, _, name = bench.head.rpartition(".")
    old = bench.part(bench.head)
    setattr(bench.part(around), name, nn.Linear(old.in_features, 4))
    found = audit(bench.model, bench.step(optimizer))
    setattr(bench.part(around), name, old)
    assert reasons(found, bench.below(bench.head)) == {("stuck", "in no optimizer group")}
    assert found.strangers == 2


def test_15_unfrozen_but_never_in_the_optimizer(bench):
    freeze(bench.model)
    unfreeze(bench.model, bench.head)
    optimizer = torch.optim.SGD([p for p in bench.model.parameters() if p.requires_grad], lr=0.1)
    unfreeze(bench.model, bench.late)
    found = audit(bench.model, bench.step(optimizer))
    assert found.stuck == dict.fromkeys(select(bench.model, bench.late), "in no optimizer group")
    optimizer.add_param_group({"params": list(bench.part(bench.late).parameters())})
    assert audit(bench.model, bench.step(optimizer)).stuck == {}


@pytest.mark.parametrize("cut", ["no_grad", "detach"])
def test_16_a_cut_in_the_middle_takes_the_gradient_from_what_lies_before(bench, cut):
    freeze(bench.model)
    unfreeze(bench.model, bench.early, bench.head)
    step = bench.step(sgd(bench, bench.early, bench.head))
    assert reasons(audit(bench.model, step), bench.below(bench.early)) <= {
        ("moved", "gradient"),
        ("stuck", "its gradient is exactly zero"),  # the bias of the keys of an attention, and dead units
        ("stuck", "the update is too small for its precision"),
    }
    middle = bench.part(bench.middle)
    if cut == "no_grad":
        middle.forward = torch.no_grad()(middle.forward)
        found = audit(bench.model, step)
        del middle.forward
    else:
        handle = middle.register_forward_hook(lambda module, args, out: out.detach())
        found = audit(bench.model, step)
        handle.remove()
    assert reasons(found, bench.below(bench.early)) == {("stuck", f"no gradient: cut off by {cut}")}
    assert reasons(found, bench.below(bench.head)) == {("moved", "gradient")}


def test_17_bare_parameters_at_the_root():
    bench = Bench("vit_b_16", **BENCHES["vit_b_16"])
    for child in bench.model.children():
        child.requires_grad_(False)
    bench.part(bench.head).requires_grad_(True)
    optimizer = torch.optim.SGD([p for p in bench.model.parameters() if p.requires_grad], lr=0.1)
    found = audit(bench.model, bench.step(optimizer))
    assert found.moved == dict.fromkeys(["class_token", *select(bench.model, bench.head)], "gradient")
    freeze(bench.model, lambda name, parameter: not name.startswith(bench.head))
    assert set(audit(bench.model, bench.step(optimizer)).moved) == bench.below(bench.head)


def test_18_and_20_norms_that_were_forgotten_in_hand_made_groups(bench):
    freeze(bench.model, lambda name, parameter: not name.startswith((bench.late, bench.head)))
    norms = [m for m in bench.part(bench.late).modules() if isinstance(m, nn.BatchNorm2d | nn.LayerNorm)]
    of_norms = {id(p) for norm in norms for p in norm.parameters()}
    rest = [p for p in bench.model.parameters() if p.requires_grad and id(p) not in of_norms]
    found = audit(bench.model, bench.step(torch.optim.SGD(rest, lr=0.1)))
    orphans = {n for n, p in bench.model.named_parameters() if id(p) in of_norms}
    assert orphans
    assert {n for n, reason in found.stuck.items() if reason == "in no optimizer group"} == orphans


def test_19_and_21_a_tie_moves_and_freezes_as_one_and_one_by_memory_leaks(bench):
    shapes = defaultdict(list)
    for name, parameter in bench.part(bench.late).named_parameters():
        shapes[parameter.shape].append(f"{bench.late}.{name}")
    first, second = next(names for names in shapes.values() if len(names) > 1)[:2]
    around, _, end = second.rpartition(".")
    one, other = bench.model.get_parameter(first), bench.model.get_parameter(second)
    freeze(bench.model, lambda name, parameter: not name.startswith(bench.head))
    unfreeze(bench.model, first)

    setattr(bench.part(around), end, one)
    found = audit(bench.model, bench.step(sgd(bench, bench.late, bench.head)))
    assert (found.moved[first], found.moved[second]) == ("gradient", f"a tie to {first}")
    freeze(bench.model, second)
    assert {first, second} <= set(audit(bench.model, bench.step(sgd(bench, bench.late, bench.head))).held)

    unfreeze(bench.model, first)
    setattr(bench.part(around), end, nn.Parameter(one.detach(), requires_grad=False))
    found = audit(bench.model, bench.step(sgd(bench, bench.late, bench.head)))
    assert found.leaks[second] == f"a tie to {first}"
    setattr(bench.part(around), end, other)


def test_22_swapping_norms_before_and_during_the_step():
    bench = Bench("resnet18", **BENCHES["resnet18"])
    optimizer = sgd(bench, "")

    def swap():
        for module in list(bench.model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, FrozenBatchNorm2d(child.num_features))

    def step():
        swap()
        bench.step(optimizer)()

    found = audit(bench.model, step)
    assert found.moved["bn1.weight"] == "replaced by another object"
    assert found.moved["bn1.num_batches_tracked"] == "removed during the step"
    assert isinstance(bench.model.bn1, nn.BatchNorm2d), "the swap is undone"
    swap()
    found = audit(bench.model, bench.step(optimizer))
    assert found.strangers == 40
    assert "bn1.weight" in found.held
    assert found.moved["conv1.weight"] == "gradient"


def test_the_table_shows_parts_and_not_every_tensor(bench):
    found = audit(bench.model, lambda: None)
    assert len(found.tensors) == len(bench.model.state_dict())
    assert 5 <= len(found.parts()) <= 25
    assert sum(len(tensors) for tensors in found.parts().values()) == len(found.tensors)
