"""Random models, random patterns, random loops: what is frozen does not move, and unfreeze undoes freeze."""

import copy

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, AdamW, RMSprop

from ftlab.freezing import audit, freeze, select, unfreeze

WIDTH = 4
# no deadline: the machine may be busy; derandomized, so that a failure here is a failure everywhere
SETTINGS = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)

LAYERS = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "norm": lambda: nn.BatchNorm1d(WIDTH),
    "plain norm": lambda: nn.BatchNorm1d(WIDTH, affine=False),
    "layer norm": lambda: nn.LayerNorm(WIDTH),
    "dropout": lambda: nn.Dropout(0.3),
    "tanh": nn.Tanh,
    "block": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Dropout(0.2)),
    "nested": lambda: nn.ModuleDict({"a": nn.Linear(WIDTH, WIDTH), "ab": nn.BatchNorm1d(WIDTH)}),
}


class Random(nn.Module):
    """Layers one after the other, a bare parameter at the root, and perhaps a tie."""

    def __init__(self, layers, tie):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(WIDTH) + 0.5)
        for number, kind in enumerate(layers):
            setattr(self, f"layer{number}", LAYERS[kind]())
        self.head = nn.Linear(WIDTH, WIDTH)
        self.layers = [*(f"layer{number}" for number in range(len(layers))), "head"]
        linear = [module for module in self.modules() if isinstance(module, nn.Linear)]
        if tie and len(linear) > 1:
            linear[0].weight = linear[-1].weight

    def forward(self, x):
        x = x * self.scale
        for name in self.layers:
            layer = getattr(self, name)
            for part in layer.values() if isinstance(layer, nn.ModuleDict) else [layer]:
                x = part(x)
        return x


@st.composite
def models(draw):
    torch.manual_seed(draw(st.integers(0, 1000)))
    model = Random(draw(st.lists(st.sampled_from(list(LAYERS)), min_size=1, max_size=5)), draw(st.booleans()))
    for module in draw(st.lists(st.sampled_from(list(model.modules())), max_size=2)):
        module.eval()  # modes that somebody has set by hand
    return model


@st.composite
def patterns(draw, model):
    """Return patterns of every kind that each choose something."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    modules = {name: module for name, module in model.named_modules() if name and list(module.parameters())}
    kinds = st.one_of(
        st.sampled_from(names),
        st.sampled_from(names).map(lambda name: f"{name[:-1]}?"),
        st.sampled_from(names).map(lambda name: f"*{name[len(name) // 2 :]}"),
        st.sampled_from(list(modules)),
        st.sampled_from(list(modules.values())),
        st.sampled_from(names).map(lambda wanted: lambda name, parameter: name == wanted),
    )
    return draw(st.lists(kinds, max_size=3))


OPTIMIZERS = {
    "SGD": lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "AdamW": lambda p: AdamW(p, lr=0.1, weight_decay=0.1),
    "RMSprop": lambda p: RMSprop(p, lr=0.01, momentum=0.9, weight_decay=0.1),
}
CALLS = {
    "train": lambda model: model.train(),
    "eval": lambda model: model.eval(),
    "eval, train": lambda model: model.eval().train(),
    "each": lambda model: [module.train() for module in model.modules()],
    "nothing": lambda model: None,
}


def one_step(model, optimizer, call, set_to_none):
    CALLS[call](model)
    optimizer.zero_grad(set_to_none=set_to_none)
    loss = model(torch.randn(6, WIDTH)).square().mean()
    if loss.requires_grad:
        loss.backward()
    optimizer.step()


def state(model):
    """Return values, flags and modes."""
    return (
        {n: t.detach().clone() for n, t in model.state_dict().items()},
        {n: p.requires_grad for n, p in model.named_parameters(remove_duplicate=False)},
        {n: (m.training, sorted(vars(m))) for n, m in model.named_modules()},
    )


def assert_same(one, other):
    assert one[1:] == other[1:]
    assert one[0].keys() == other[0].keys()
    for name in one[0]:
        assert torch.equal(one[0][name], other[0][name]), name


@SETTINGS
@given(data=st.data())
def test_nothing_that_is_frozen_moves_in_whatever_loop(data):
    model = data.draw(models())
    optimizer = OPTIMIZERS[data.draw(st.sampled_from(list(OPTIMIZERS)))](model.parameters())
    set_to_none = data.draw(st.booleans())
    one_step(model, optimizer, "train", set_to_none)  # fills momentum and moments
    chosen = data.draw(patterns(model))
    freeze(model, *chosen)
    names = set(select(model, *chosen))
    modules = dict(model.named_modules())
    for name, module in modules.items():  # the statistics of norms whose own parameters are all frozen
        own = list(module.parameters(recurse=False))
        if own and all(not p.requires_grad for p in own):
            names |= {f"{name}.{buffer}" for buffer, _ in module.named_buffers(recurse=False)}
    if not chosen:
        names = set(model.state_dict())
    before = state(model)[0]
    for call in data.draw(st.lists(st.sampled_from(list(CALLS)), min_size=3, max_size=3)):
        one_step(model, optimizer, call, set_to_none)
    after = state(model)[0]
    assert [name for name in names if not torch.equal(before[name], after[name])] == []


@SETTINGS
@given(data=st.data())
def test_after_unfreeze_everything_is_as_before(data):
    model = data.draw(models())
    before = state(model)
    chosen = data.draw(patterns(model))
    freeze(model, *chosen, batch_norm=data.draw(st.sampled_from(["eval", "train"])))
    for again in data.draw(st.lists(patterns(model), max_size=2)):
        freeze(model, *again)
    unfreeze(model)
    assert_same(before, state(model))


@SETTINGS
@given(data=st.data())
def test_modes_after_a_loop_are_those_of_a_model_that_was_never_frozen(data):
    model = data.draw(models())
    twin = copy.deepcopy(model)
    freeze(model, *data.draw(patterns(model)))
    for call in data.draw(st.lists(st.sampled_from(["train", "eval", "eval, train", "each"]), min_size=1)):
        CALLS[call](model)
        CALLS[call](twin)
    unfreeze(model)
    assert [m.training for m in model.modules()] == [m.training for m in twin.modules()]


@SETTINGS
@given(data=st.data())
def test_freezing_travels_with_a_copy(data):
    model = data.draw(models())
    freeze(model, *data.draw(patterns(model)))
    twin = copy.deepcopy(model)
    assert_same(state(model), state(twin))
    model.train()
    twin.train()
    assert_same(state(model), state(twin))


@settings(SETTINGS, max_examples=25)
@given(data=st.data())
def test_the_audit_says_what_moved_and_leaves_no_trace(data):
    model = data.draw(models())
    optimizer = OPTIMIZERS[data.draw(st.sampled_from(list(OPTIMIZERS)))](model.parameters())
    call, set_to_none = data.draw(st.sampled_from(list(CALLS))), data.draw(st.booleans())
    one_step(model, optimizer, "train", set_to_none)
    for name in data.draw(patterns(model)):
        for parameter in select(model, name):
            model.get_parameter(parameter).requires_grad_(False)  # by flag alone: many things still move
    torch.manual_seed(1)
    before, moments, random = state(model), str(optimizer.state_dict()), torch.get_rng_state()
    found = audit(model, lambda: one_step(model, optimizer, call, set_to_none), optimizer=optimizer)
    assert_same(before, state(model))
    assert str(optimizer.state_dict()) == moments
    assert torch.equal(random, torch.get_rng_state())

    one_step(model, optimizer, call, set_to_none)
    after = state(model)[0]
    really = {name for name, value in after.items() if not torch.equal(value, before[0][name])}
    assert set(found.moved) == really
    assert all(found.moved.values())
    assert all(found.stuck.values())
    assert set(found.stuck) | set(found.held) | set(found.moved) == set(after)
    frozen = {name for name, flag in state(model)[1].items() if not flag}
    assert not frozen & set(found.stuck)
    assert {name for name in found.leaks if name in state(model)[1]} == frozen & really
