"""The cost of a choice of frozen parts, held against autograd, the FLOP counter and real optimizers."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model, resnet18

from ftlab.freezing import cost, freeze, unfreeze

MIB = 2**20
PARTS = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]


def really(model, x):
    """Run forward and backward for real, and return (activations, forward, backward, gradients)."""
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers(), x]}
    saved, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    model.zero_grad(set_to_none=True)
    with saved_tensors_hooks(pack, lambda t: t), FlopCounterMode(display=False) as forward:
        out = model(x)
    with FlopCounterMode(display=False) as backward:
        if out.requires_grad:
            out.sum().backward()
    gradients = sum(p.grad.numel() * p.grad.element_size() for p in model.parameters() if p.grad is not None)
    return sum(saved.values()), forward.get_total_flops(), backward.get_total_flops(), gradients


def counted(model, x):
    now = cost(model, x).now
    return now.activations, now.forward, now.backward, now.gradients


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return resnet18(num_classes=10)


CHOICES = {
    "nothing": [],
    "up to layer1": PARTS[:3],
    "up to layer2": PARTS[:4],
    "all but fc": PARTS[:6],
    "layer3 to fc": PARTS[4:],
    "all but conv1": PARTS[1:],
    "the middle": ["layer2", "layer3"],
    "everything": PARTS,
    "here and there": [lambda name, parameter: len(name) % 2 == 0],
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_exact_against_a_real_step_of_resnet18(resnet, choice, batch_norm):
    unfreeze(resnet)
    resnet.train()
    if CHOICES[choice]:
        freeze(resnet, *CHOICES[choice], batch_norm=batch_norm)
    x = torch.randn(2, 3, 64, 64)
    assert counted(resnet, x) == really(resnet, x)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vit_b_16", "swin_t"])
def test_exact_on_other_architectures_half_frozen(name):
    torch.manual_seed(0)
    options = {"image_size": 64} if name == "vit_b_16" else {}
    model = get_model(name, weights=None, num_classes=3, **options).train()
    names = [n for n, _ in model.named_parameters()]
    freeze(model, lambda name, parameter: names.index(name) < len(names) // 2)
    x = torch.randn(2, 3, 64, 64)
    assert counted(model, x) == really(model, x)


def test_position_decides_and_not_the_share(resnet):
    """The numbers that the lesson shows, on batches of 8 images of 112 x 112 pixels."""
    x = torch.zeros(8, 3, 112, 112)

    def of(*parts):
        unfreeze(resnet)
        resnet.train()
        freeze(resnet, *parts, batch_norm="train")
        return cost(resnet, x)

    first = of(*PARTS[:4])
    frozen = 1 - first.now.trainable / first.everything.trainable
    assert round(frozen, 2) == 0.06
    assert round(first.backward_share, 2) == 0.49
    assert (round(first.now.activations / MIB, 1), round(first.everything.activations / MIB, 1)) == (6.5, 41.7)
    last = of(*PARTS[4:])
    assert round(1 - last.now.trainable / last.everything.trainable, 2) == 0.94
    assert round(last.now.activations / MIB, 1) == 41.7
    assert round(last.backward_share, 2) == 0.75
    assert (round(first.now.forward / 1e9, 2), round(first.everything.backward / 1e9, 2)) == (7.76, 15.04)
    assert first.now.forward == first.everything.forward, "forward is never cheaper"


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("momentum", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.1)),
        ("adam", lambda p: torch.optim.AdamW(p, lr=0.1)),
        (None, lambda p: torch.optim.SGD(p, lr=0.1)),
    ],
)
def test_optimizer_state_is_that_of_the_real_optimizer(resnet, field, make):
    unfreeze(resnet)
    resnet.train()
    freeze(resnet, "layer4")
    x = torch.randn(2, 3, 64, 64)
    step = cost(resnet, x).now
    optimizer = make(resnet.parameters())
    really(resnet, x)
    optimizer.step()
    tensors = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    assert sum(t.numel() * t.element_size() for t in tensors) == (getattr(step, field) if field else 0)


def test_half_precision_a_tied_weight_and_an_input_that_needs_a_gradient():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).bfloat16()
    model[2].weight = model[0].weight
    x = torch.randn(2, 4, dtype=torch.bfloat16, requires_grad=True)
    assert cost(model, x).now.gradients == 2 * (16 + 4 + 4)
    freeze(model)
    needs, plain = cost(model, x).now, cost(model, x.detach()).now
    assert (needs.backward, plain.backward) == (2 * 2 * 2 * 16, 0)
    assert needs.gradients == plain.gradients == 0


def test_several_inputs_and_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x, y):
            return {"one": self.one(x), "rest": [self.other(y)]}

    now = cost(Two(), (torch.zeros(3, 4), torch.zeros(5, 4))).now
    assert now.forward == now.backward == 2 * (3 + 5) * 4 * 2


def test_counting_changes_nothing():
    model = resnet18(num_classes=2)
    model.calls = []
    model.register_forward_pre_hook(lambda module, args: module.calls.append(1))
    freeze(model, "layer1")
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    state = {k: (v.clone(), v.data_ptr(), v._version) for k, v in model.state_dict().items()}
    attributes = {n: (m.training, sorted(vars(m))) for n, m in model.named_modules()}
    flags = [(id(p), p.requires_grad, p.grad is None) for p in model.parameters()]
    random = torch.get_rng_state()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator())
    cost(model, images)
    assert images._version == 0
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key][0])
        assert value.data_ptr() == state[key][1]
        assert value._version == state[key][2]  # not even autograd sees a write
    assert attributes == {n: (m.training, sorted(vars(m))) for n, m in model.named_modules()}
    assert flags == [(id(p), p.requires_grad, p.grad is None) for p in model.parameters()]
    assert torch.equal(random, torch.get_rng_state())
    assert model.calls == []


def test_dropout_draws_no_random_numbers():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    random = torch.get_rng_state()
    cost(model, torch.zeros(2, 4))
    assert torch.equal(random, torch.get_rng_state())


def test_no_real_memory_is_taken():
    """A step of this model would need 40 GB; its parameters are on the meta device."""
    with torch.device("meta"):
        model = nn.Sequential(*[nn.Linear(20_000, 20_000, bias=False) for _ in range(8)])
        found = cost(model, torch.zeros(1000, 20_000))
    assert found.now.gradients == 8 * 20_000 * 20_000 * 4


def test_a_forward_that_asks_for_values_is_explained():
    class Decides(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(RuntimeError) as caught:
        cost(Decides(2, 2), torch.ones(1, 2))
    assert "forward asks for a value" in caught.value.__notes__[0]


def test_the_table(resnet):
    unfreeze(resnet)
    freeze(resnet, *PARTS[:4], batch_norm="train")
    found = cost(resnet, torch.zeros(8, 3, 112, 112))
    text = repr(found)
    assert text.startswith("Backward does 49% of the work of full training, and keeps 6.5 of 41.7 MiB of act")
    rows = {row["one step"]: row for row in found.table().to_dict()}
    assert rows["backward"] == {
        "one step": "backward",
        "now": "7.33 GFLOP",
        "all trainable": "15.04 GFLOP",
        "share": "49%",
    }
    assert rows["optimizer state: SGD"]["now"] == "0.00 MiB"
    assert "<table>" in found._repr_html_()
    assert found.to_dict()["now"]["backward"] == found.now.backward
