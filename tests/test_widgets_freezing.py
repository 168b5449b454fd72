import copy
import threading
import time
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from ftlab.freezing import audit, cost, freeze
from ftlab.freezing.norms import is_held
from ftlab.widgets import background
from ftlab.widgets.background import Latest
from ftlab.widgets.freezing import FreezePanel, freeze_code
from ftlab.widgets.freezing import panel as panel_module
from ftlab.widgets.freezing.step import share_memory


def small():
    """A model with everything: norms, a bare parameter, nesting, dropout."""
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
            self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Dropout(0.5))
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.scale * self.body(self.stem(x)).mean((2, 3)))

    return Model()


EXAMPLE = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    return small()


@pytest.fixture
def panel(model):
    return FreezePanel(model, example=EXAMPLE)


def state(model):
    """Everything that a look must not change."""
    return {
        "tensors": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "flags": [p.requires_grad for p in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "held": [is_held(m) for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "random": torch.get_rng_state(),
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    torch.testing.assert_close(one["tensors"], other["tensors"], rtol=0, atol=0)
    for left, right in zip(one["gradients"], other["gradients"], strict=True):
        assert (left is None) == (right is None)
        assert left is None or torch.equal(left, right)
    assert torch.equal(one["random"], other["random"])
    for part in ("flags", "modes", "held", "attributes"):
        assert one[part] == other[part], part


def behaviour(model):
    """Flags by name, and which modules are in train mode after `model.train()`."""
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    return flags, {name: m.training for name, m in model.train().named_modules()}


def trainable(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


# -- clicking --------------------------------------------------------------------------------------


def test_a_toggle_freezes_a_block_of_the_model_itself_and_the_next_thaws_it(panel, model):
    panel.tree.toggle("stem")
    assert trainable(model) == {"scale", "body.0.weight", "body.0.bias", "head.weight", "head.bias"}
    panel.tree.toggle("stem")
    assert trainable(model) == {name for name, _ in model.named_parameters()}
    assert not any(map(is_held, model.modules()))


def test_a_message_from_the_browser_does_the_same(panel, model):
    panel.tree._handle_custom_msg({"kind": "toggle", "path": "head"}, [])
    assert not model.head.weight.requires_grad


def test_a_block_that_trains_in_part_is_frozen(panel, model):
    panel.tree.toggle("stem.0")
    panel.tree.toggle("stem")
    assert not any(p.requires_grad for p in model.stem.parameters())


def test_the_model_as_a_whole_and_a_bare_parameter_can_be_toggled(panel, model):
    panel.tree.toggle("")
    assert trainable(model) == set()
    panel.tree.toggle("scale")
    assert trainable(model) == {"scale"}


def test_the_rows_follow(panel):
    panel.tree.toggle("stem")
    rows = {row["path"]: row for row in panel.tree.rows}
    assert (rows[""]["state"], rows["stem"]["state"], rows["head"]["state"]) == (None, False, True)
    assert rows["stem"]["note"] == "statistics held"


def test_the_line_counts_blocks_parameters_and_norms(panel):
    assert repr(panel) == "0 of 4 blocks frozen, 284 of 284 parameters trainable, 0 of 2 norms held"
    panel.tree.toggle("stem")
    assert repr(panel) == "1 of 4 blocks frozen, 164 of 284 parameters trainable, 1 of 2 norms held"


def test_reset_puts_flags_and_norms_back_as_found(model):
    freeze(model, "stem", batch_norm="train")
    freeze(model, "body")
    before = behaviour(model), [is_held(m) for m in model.modules()]
    panel = FreezePanel(model, example=EXAMPLE)
    panel.tree.toggle("body")
    panel.tree.toggle("head")
    panel.batch_norm.value = "eval"
    assert (behaviour(model), [is_held(m) for m in model.modules()]) != before
    panel.reset.click()
    assert (behaviour(model), [is_held(m) for m in model.modules()]) == before


# -- the batch norm policy -------------------------------------------------------------------------


def test_the_policy_is_that_of_the_next_freeze(panel, model):
    panel.batch_norm.value = "train"
    panel.tree.toggle("stem")
    assert not is_held(model.stem[1])
    assert model.train().stem[1].training


def test_changing_the_policy_reaches_what_is_frozen_already(panel, model):
    panel.tree.toggle("stem")
    panel.tree.toggle("body")
    panel.batch_norm.value = "train"
    assert not is_held(model.stem[1])
    panel.batch_norm.value = "eval"
    assert is_held(model.stem[1])
    assert is_held(model.body[1])
    assert not model.train().stem[1].training


def test_changing_the_policy_freezes_nothing(panel, model):
    panel.batch_norm.value = "train"
    panel.batch_norm.value = "eval"
    assert all(p.requires_grad for p in model.parameters())
    assert not any(map(is_held, model.modules()))


@pytest.mark.parametrize("policy", ["eval", "train"])
def test_the_policy_is_read_from_the_model(model, policy):
    freeze(model, "stem", batch_norm=policy)
    assert FreezePanel(model, example=EXAMPLE).batch_norm.value == policy


# -- the step --------------------------------------------------------------------------------------


def test_the_step_marks_what_moved_though_frozen_with_its_reason(panel):
    panel.batch_norm.value = "train"
    panel.tree.toggle("stem")
    panel.step.click()
    rows = {row["path"]: row for row in panel.tree.rows}
    assert rows["stem"]["mark"] == "moved though frozen"
    assert "batch norm statistics (2)" in rows["stem"]["reason"]
    assert (rows["stem.0"]["mark"], rows["head"]["mark"]) == ("held", "moved")
    assert "gradient (2)" in rows["head"]["reason"]
    assert "after one step 3 frozen tensors have moved" in repr(panel)
    assert "hold the norms in eval mode" in panel.verdict.value


def test_with_held_norms_nothing_frozen_moves(panel):
    panel.tree.toggle("stem")
    panel.step.click()
    assert "after one step 0 frozen tensors have moved" in repr(panel)
    assert {row["path"]: row["mark"] for row in panel.tree.rows}["stem"] == "held"


def test_the_step_can_be_the_learners_own(model):
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        model(EXAMPLE).sum().backward()
        optimizer.step()

    panel = FreezePanel(model, example=EXAMPLE, step=step)
    panel.step.click()
    rows = {row["path"]: row for row in panel.tree.rows}
    assert rows["head"]["mark"] == "moved"
    assert rows["body"]["mark"] == "stuck"
    assert panel.audit.to_dict() == audit(model, step).to_dict()


def test_an_old_verdict_is_taken_away_by_the_next_change(panel):
    panel.step.click()
    panel.tree.toggle("head")
    assert panel.audit is None
    assert panel.verdict.value == ""
    assert {row["mark"] for row in panel.tree.rows} == {""}


def test_a_step_that_fails_is_shown_and_leaves_no_old_verdict(panel, monkeypatch):
    monkeypatch.delenv("FTLAB_CI")
    panel.step.click()
    panel.own_step = lambda: 1 / 0
    panel.step.click()
    assert isinstance(panel.failure, ZeroDivisionError)
    assert "ZeroDivisionError" in panel._error.value
    assert panel.audit is None
    assert panel.step.description == "Run one step"


def test_a_batch_that_does_not_fit_is_said_where_the_cost_would_be(model):
    panel = FreezePanel(model, example=torch.ones(4, 5, 8, 8))
    assert "cannot be counted" in panel.saved.value
    assert "example=" in panel.saved.value


def test_a_model_whose_input_nobody_can_guess_asks_for_a_batch():
    with pytest.raises(ValueError, match=r"what does a Embedding take\? Hand over a batch"):
        FreezePanel(nn.Embedding(3, 2))
    FreezePanel(nn.Sequential(nn.Embedding(3, 2)), example=torch.tensor([0, 1]))


@pytest.mark.parametrize("several", [False, True])
def test_a_model_with_several_inputs_takes_them_as_a_tuple(several):
    model = nn.Bilinear(2, 3, 4)
    example = (torch.ones(4, 2), torch.ones(4, 3)) if several else torch.ones(4, 2)
    panel = FreezePanel(model, example=example)
    assert ("cannot be counted" in panel.saved.value) == (not several)
    if several:
        panel.step.click()
        assert panel.audit.moved


# -- looking changes nothing -----------------------------------------------------------------------


def test_making_showing_and_stepping_leave_no_trace(model):
    model(EXAMPLE).sum().backward()
    model.body.eval()
    freeze(model, "stem")
    before = state(model)
    panel = FreezePanel(model, example=EXAMPLE)
    panel.show_code.value = True
    panel.to_html()
    panel.step.click()
    panel.refresh()
    assert_same(state(model), before)


def test_a_trace_would_be_seen(model):
    before = state(model)
    model(EXAMPLE)
    with pytest.raises(AssertionError):
        assert_same(state(model), before)


def test_counting_the_cost_runs_no_hook_of_the_learners(model):
    calls = []
    model.head.register_forward_hook(lambda *_: calls.append(1))
    FreezePanel(model, example=EXAMPLE)
    assert calls == []


# -- the cost --------------------------------------------------------------------------------------


def test_the_cost_is_that_of_the_model_in_train_mode(panel, model):
    panel.tree.toggle("stem")
    found = panel._cost()
    assert found == cost(model.train(), EXAMPLE)
    assert f"{found.backward_share:.0%}" in panel.saved.value
    assert found.backward_share < 1


def test_each_state_is_counted_once(panel):
    for _ in range(3):
        panel.tree.toggle("stem")
    assert len(panel._costs) == 2


def test_the_cost_comes_later_and_the_tree_does_not_wait(model, monkeypatch):
    monkeypatch.delenv("FTLAB_CI")
    over = threading.Event()  # the pause
    monkeypatch.setattr(background, "time", SimpleNamespace(sleep=lambda seconds: over.wait()))
    panel = FreezePanel(model, example=EXAMPLE)
    panel.tree.toggle("stem")
    assert "Counting" in panel.saved.value
    assert panel.tree.rows[1]["path"] == "scale"
    over.set()
    end = time.monotonic() + 600
    while "Counting" in panel.saved.value and time.monotonic() < end:
        time.sleep(0.02)
    assert "backward work" in panel.saved.value
    assert len(panel._costs) == 1  # the state before the click was dropped, nobody looks at it any more
    panel.close()


def test_a_cost_counted_too_late_is_not_taken_for_another_state(panel, model):
    before = panel._cost()
    freeze(model, "stem")  # while the count of the state before was under way
    panel._costs.clear()
    panel._count(("the state before",))
    assert panel._costs == {}
    assert panel._cost() != before


def test_a_model_under_audit_is_not_copied(model, monkeypatch):
    monkeypatch.delenv("FTLAB_CI")
    monkeypatch.setattr(Latest, "pause", 0.0)
    copied, during = threading.Event(), []
    monkeypatch.setattr(panel_module, "share_memory", lambda model: copied.set() or share_memory(model))

    def step():
        copied.clear()
        panel._costs.clear()
        panel.refresh()  # asks for the cost
        during.append(copied.wait(0.5))

    panel = FreezePanel(model, example=EXAMPLE, step=step)
    panel.step.click()
    assert panel.failure is None
    assert during == [False]
    assert copied.wait(600)
    panel.close()


# -- the code --------------------------------------------------------------------------------------


def run_code(code, model):
    assert "ftlab" not in code
    exec(code, {"model": model})
    return model


SCENES = [
    [],
    [""],
    ["stem"],
    ["stem.1"],
    ["scale", "body"],
    ["", "head"],
    ["", "scale", "stem.1"],
    ["stem", "body", "head"],
]


@pytest.mark.parametrize("policy", ["eval", "train"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: "+".join(scene) or "none")
def test_the_code_brings_a_fresh_model_to_the_same_state(scene, policy):
    panel = FreezePanel(small(), example=EXAMPLE)
    panel.batch_norm.value = policy
    for path in scene:
        panel.tree.toggle(path)
    fresh = run_code(panel.code(), small())
    assert behaviour(fresh) == behaviour(panel.model)


def test_the_code_of_mixed_policies_names_each_held_norm(model):
    panel = FreezePanel(model, example=EXAMPLE)
    freeze(model, "stem", batch_norm="eval")
    freeze(model, "body", batch_norm="train")
    assert behaviour(run_code(panel.code(), small())) == behaviour(model)


def test_the_code_lets_a_real_step_move_the_same_tensors(panel):
    panel.tree.toggle("stem")
    panel.tree.toggle("body.0")
    moved = []
    for model in (panel.model, run_code(panel.code(), small())):
        torch.manual_seed(2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)

        def step(model=model, optimizer=optimizer):
            model.train()
            optimizer.zero_grad()
            model(EXAMPLE).square().sum().backward()
            optimizer.step()

        moved.append(audit(model, step, optimizer=optimizer).moved.keys())
    assert moved[0] == moved[1]
    assert "stem.1.running_mean" not in moved[0]


def test_the_code_drops_gradients_that_are_left_over(panel):
    panel.tree.toggle("stem")
    fresh = small()
    fresh(EXAMPLE).sum().backward()
    run_code(panel.code(), fresh)
    assert fresh.stem[0].weight.grad is None
    assert fresh.head.weight.grad is not None


@pytest.mark.parametrize(
    ("name", "toggles"),
    [
        ("resnet18", ["conv1", "bn1", "layer1", "layer2.0"]),
        ("mobilenet_v3_small", ["features", "features.12"]),
        ("vit_b_16", ["class_token", "encoder.pos_embedding", "encoder.layers.encoder_layer_0.self_attention"]),
        ("densenet121", ["", "classifier"]),
    ],
)
def test_the_code_works_on_known_models(name, toggles, monkeypatch):
    monkeypatch.setattr(FreezePanel, "_cost", lambda self: None)  # counted elsewhere, and slow here
    model = torchvision.models.get_model(name, weights=None)
    fresh = copy.deepcopy(model)
    panel = FreezePanel(model)
    for path in toggles:
        panel.tree.toggle(path)
    assert behaviour(run_code(freeze_code(model), fresh)) == behaviour(model)


def test_the_code_shown_follows_the_clicks(panel):
    panel.show_code.value = True
    panel.tree.toggle("head")
    assert "[&quot;head&quot;]" in panel._code.value


# -- the twin --------------------------------------------------------------------------------------


def test_the_twin_says_the_same_for_the_same_state():
    twins = []
    for _ in range(2):
        panel = FreezePanel(small(), example=EXAMPLE)
        panel.batch_norm.value = "train"
        panel.tree.toggle("stem")
        panel.step.click()
        twins.append(panel.to_html())
    assert twins[0] == twins[1]
    for part in ("let its statistics move", "moved though frozen", "backward work", "1 of 4 blocks frozen"):
        assert part in twins[0]
