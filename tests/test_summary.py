import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from ftlab.freezing import cost, freeze
from ftlab.summary import summarize
from ftlab.summary.rows import own_rows


class Bare(nn.Module):
    """With a parameter beside modules, a tied weight, a shared layer and a buffer."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))
        self.embed, self.decode = nn.Embedding(10, 5), nn.Linear(5, 10)
        self.decode.weight = self.embed.weight
        self.mix = nn.Linear(5, 5)
        self.blocks = nn.ModuleDict({"again": self.mix})
        self.register_buffer("count", torch.zeros(3))

    def forward(self, words):
        return self.decode(self.blocks["again"](self.mix(self.embed(words) * self.scale)))


class Several(nn.Module):
    """Takes tensors, keywords and nested containers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, first, others=None, *, flip=False):
        out = self.a(first) + (self.b(others["x"][0]) if others else 0)
        return {"out": -out if flip else out, "parts": [out, (out,)]}


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(288, 4)
    )


WORDS = torch.zeros(2, 6, dtype=torch.long)


def fingerprint(model):
    """Everything that a look must not change, with values."""
    return {
        "values": {name: t.clone() for name, t in model.state_dict().items()},
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "tensors": [id(t) for t in [*model.parameters(), *model.buffers()]],
        "writes": [t._version for t in model.state_dict().values()],
        "flags": [p.requires_grad for p in model.parameters()],
        "devices": [t.device for t in [*model.parameters(), *model.buffers()]],
        "modes": [m.training for m in model.modules()],
        "hooks": [[*m._forward_hooks, *m._forward_pre_hooks] for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "random": (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()),  # noqa: NPY002
        "settings": (torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()),
    }


def differences(one, other):
    """Return what differs between two fingerprints."""
    found = {key for key in one if key not in ("values", "gradients") and one[key] != other[key]}
    for key in ("values", "gradients"):
        assert one[key].keys() == other[key].keys()
        pairs = [(one[key][name], other[key][name]) for name in one[key]]
        if any(a is not b and (a is None or b is None or not torch.equal(a, b)) for a, b in pairs):
            found.add(key)
    return found


def assert_same(one, other):
    assert differences(one, other) == set()


@pytest.mark.parametrize("build", [small, models.resnet18, lambda: models.mobilenet_v3_small(dropout=0.5)])
def test_nothing_of_the_model_changes(build):
    model = build()
    example = torch.rand(2, 3, 8, 8) if build is small else torch.rand(2, 3, 64, 64)
    model(example).sum().backward()
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    norm.eval()
    next(model.parameters()).requires_grad_(False)
    before = fingerprint(model)
    summarize(model, example)
    assert_same(before, fingerprint(model))


def test_a_real_look_would_be_seen():
    model = small()
    before = fingerprint(model)
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    assert {"values", "gradients", "random"} <= differences(before, fingerprint(model))
    model.eval()[0].register_forward_hook(lambda *_: None)
    assert {"modes", "hooks"} <= differences(before, fingerprint(model))


def test_nothing_changes_when_forward_fails():
    model = small()
    before = fingerprint(model)
    with pytest.raises((RuntimeError, ValueError)):
        summarize(model, (2, 5, 8, 8))
    assert_same(before, fingerprint(model))
    assert not torch.nn.modules.module._global_forward_hooks


def test_what_forward_writes_to_the_model_is_taken_back():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.seen = nn.Linear(2, 2), []

        def forward(self, x):
            self.last = x
            self.seen.append(x)
            return self.fc(x + torch.rand(1) + random.random())

    model = Remembers()
    before = fingerprint(model)
    summarize(model, (1, 2))
    assert_same(before, fingerprint(model))
    assert model.seen == []


def test_the_learners_own_hooks_are_not_called_and_stay():
    model, seen = small(), []
    model[0].register_forward_hook(lambda module, args, out: seen.append(out))
    summarize(model, (2, 3, 8, 8))
    assert seen == []
    model(torch.rand(2, 3, 8, 8))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("model", "example"),
    [(small(), (2, 3, 8, 8)), (Bare(), WORDS), (models.resnet18(), (1, 3, 64, 64)), (Several(), (1, 3))],
    ids=["small", "bare", "resnet18", "several"],
)
def test_totals_add_up_to_the_rows(model, example):
    found = summarize(model, example)
    for kind in ("parameters", "trainable", "buffers", "multiply_adds", "activations"):
        assert sum(getattr(row, f"own_{kind}") for row in found.rows) == getattr(found.rows[0], kind)
        for row in found.rows:
            below = [
                o
                for o in found.rows
                if o.depth == row.depth + 1 and (not row.path or o.path.startswith(f"{row.path}."))
            ]
            assert getattr(row, kind) == getattr(row, f"own_{kind}") + sum(getattr(o, kind) for o in below)


@pytest.mark.parametrize("build", [small, Bare, Several])
def test_parameter_counts_agree_with_pytorch(build):
    model = build()
    found = summarize(model, {small: (2, 3, 8, 8), Bare: WORDS, Several: (1, 3)}[build])
    assert found.total_params == sum(p.numel() for p in model.parameters())
    assert found.parameter_bytes == sum(p.numel() * p.element_size() for p in model.parameters())
    assert found.buffer_bytes == sum(b.numel() * b.element_size() for b in model.buffers())


def test_tied_bare_and_shared_ones_count_once_and_are_marked():
    found = summarize(Bare(), WORDS)
    assert (found["scale"].kind, found["scale"].parameters) == ("parameter", 5)
    assert (found["decode"].tied, found["decode"].parameters) == (("embed.weight",), 10)  # its own bias
    assert found["blocks.again"].tied == ("mix.weight", "mix.bias")
    assert (found["mix"].calls, found["blocks.again"].calls) == (2, 0)
    assert "is embed.weight" in repr(found.table(3))


def test_a_shared_layer_is_counted_in_the_block_that_calls_it():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Sequential(shared), nn.Sequential(shared, nn.ReLU()))
    found = summarize(model, (3, 4))
    assert [found[path].multiply_adds for path in ("", "0", "1", "1.0")] == [96, 48, 48, 48]
    assert (found["0"].parameters, found["1"].parameters) == (20, 0)


def test_the_work_and_the_activations_are_those_of_the_cost():
    for model, example in ((small(), torch.rand(2, 3, 8, 8)), (models.resnet18(), torch.rand(2, 3, 64, 64))):
        for frozen in ([], ["0"] if isinstance(model, nn.Sequential) else ["conv1", "bn1", "layer1"]):
            if frozen:
                freeze(model, *frozen)
            found, counted = summarize(model, example), cost(model, example).now
            assert 2 * found.multiply_adds == counted.forward
            assert found.activations == counted.activations
            assert (found.gradient_bytes, found.optimizer_bytes["Adam, AdamW"]) == (
                counted.gradients,
                counted.adam,
            )


def test_the_work_of_a_block_is_that_of_the_block_run_alone():
    model = models.resnet18()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(model).eval()(torch.rand(1, 3, 64, 64))
    found, counted = summarize(model, (1, 3, 64, 64)), counter.get_flop_counts()
    for path in ("layer1", "layer3.0", "layer4.1.conv2", "fc"):
        assert 2 * found[path].multiply_adds == sum(counted[f"ResNet.{path}"].values())


def test_a_partly_frozen_block_is_shown_as_partly_and_modes_are_shown():
    model = models.resnet18()
    freeze(model, "layer1", "layer2.0.conv1")
    model.layer1.eval()
    found = summarize(model, (1, 3, 64, 64))
    assert [found[p].state for p in ("", "layer1", "layer2", "layer3", "relu")] == [
        "partly",
        "frozen",
        "partly",
        "trains",
        "",
    ]
    assert [found[p].mode for p in ("", "layer1", "layer2", "layer3")] == ["mixed", "eval", "train", "train"]
    assert found.trainable_params == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found["layer1"].trainable == 0


@pytest.mark.parametrize(
    ("example", "keywords"),
    [
        (torch.rand(2, 3), None),
        ((2, 3), None),
        ([2, 3], None),
        ((torch.rand(2, 3), {"x": [torch.rand(2, 2)]}), None),
        (((2, 3), {"x": [torch.rand(2, 2)]}), {"flip": True}),
        ({"first": torch.rand(2, 3), "others": {"x": (torch.rand(2, 2),)}}, None),
        ({"first": (2, 3), "flip": True}, None),
    ],
)
def test_inputs_may_be_sizes_tensors_keywords_and_nested(example, keywords):
    found = summarize(Several(), example, keywords=keywords)
    assert found.rows[0].outputs == ((2, 4),) * 3
    assert found["a"].output == "2×4"


def test_a_model_on_the_meta_device_counts_as_a_real_one():
    kwargs = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    real = models.VisionTransformer(**kwargs)
    with torch.device("meta"):
        meta = models.VisionTransformer(**kwargs)
    for mode in (True, False):
        assert (
            summarize(real.train(mode), (2, 3, 32, 32)).to_dict()
            == summarize(meta.train(mode), (2, 3, 32, 32)).to_dict()
        )
    assert all(p.is_meta for p in meta.parameters())


def test_it_counts_without_gradients_around_and_other_types():
    model = small().double()
    with torch.no_grad():
        found = summarize(model, (2, 3, 8, 8))
    assert found.activations == summarize(model, torch.rand(2, 3, 8, 8, dtype=torch.float64)).activations > 0
    assert found.parameter_bytes == 8 * found.total_params


def test_frozen_attention_in_eval_mode_is_counted():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    full = summarize(layer.eval(), (2, 5, 8)).multiply_adds
    assert summarize(layer.requires_grad_(False), (2, 5, 8)).multiply_adds == full > 0


def test_lists_of_modules_that_nobody_calls_have_no_calls():
    found = summarize(Bare(), WORDS)
    assert found["blocks"].calls == 0
    assert found["blocks"].outputs == ()


def test_the_learning_rate_of_each_block_is_shown_and_what_the_optimizer_has_not():
    model = models.resnet18()
    freeze(model, "layer1", batch_norm="train")
    groups = [{"params": model.layer4.parameters(), "lr": 1e-4}, {"params": model.fc.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    before = copy.deepcopy(optimizer.state_dict())
    found = summarize(model, (1, 3, 64, 64), optimizer=optimizer)
    rates = {path: found[path].lr for path in ("layer1", "layer2", "layer4", "fc", "relu", "")}
    assert rates == {
        "layer1": "", "layer2": "none", "layer4": "0.0001", "fc": "0.001", "relu": "", "": "none, 0.0001, 0.001",
    }  # fmt: skip
    assert optimizer.state_dict() == before
    assert found.table().headers[-1] == "lr"
    assert "lr 0.0001" in found._repr_html_()
    assert summarize(model, (1, 3, 64, 64)).table().headers[-1] == "activations"


def test_buffers_are_counted_per_block():
    found = summarize(models.resnet18(), (1, 3, 64, 64))
    assert (found["bn1"].buffers, found["conv1"].buffers) == (129, 0)
    assert found.rows[0].buffers == sum(b.numel() for b in models.resnet18().buffers())


def test_what_does_not_fit_is_explained():
    with pytest.raises(ValueError, match="expected 4D input") as caught:
        summarize(models.resnet18(), (3, 64, 64))
    assert caught.value.__notes__ == [
        "ftlab: it happened in 'bn1' (BatchNorm2d), which was given 64×32×32",
        "ftlab: the size given was (3, 64, 64); its first number is the batch. Did you mean (1, 3, 64, 64)?",
    ]


@pytest.mark.parametrize(
    ("example", "note"),
    [
        ((64, 48), "Did you mean (1, 3, 64, 48)?"),
        ((64, 48, 3), "Did you mean (1, 3, 64, 48)?"),
        ((2, 64, 48, 3), "Did you mean (2, 3, 64, 48)?"),
        ((1, 4, 64, 64), "the size given was (1, 4, 64, 64); its first number is the batch"),
        (224, "the example was of class int; a batch is a tensor (N, C, H, W)"),
        (np.zeros((1, 3, 64, 64)), "the example was of class ndarray"),
    ],
)
def test_an_example_of_another_kind_is_told_what_was_probably_meant(example, note):
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        summarize(models.resnet18(), example)
    assert note in caught.value.__notes__[-1]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Linear(4, 2), "Linear: most parameters in (all), most work in (all)"),
        (nn.Sequential(nn.ReLU()), "Sequential: no parameters, no work"),
        (nn.Sequential(nn.Linear(4, 2)), "Sequential: most parameters in 0, most work in 0"),
    ],
)
def test_a_picture_of_very_little(model, says):
    assert summarize(model, (1, 4)).plot().says == says


def test_numbers_of_numpy_make_a_size_too():
    assert summarize(small(), tuple(np.array([2, 3, 8, 8]))).inputs == "2×3×8×8"


def test_a_forward_that_asks_for_values_is_explained():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(x) if x.sum() > 0 else x

    with pytest.raises(RuntimeError) as caught:
        summarize(Asks(), (1, 2))
    assert "forward asks for a value" in caught.value.__notes__[-1]


def test_lazy_parameters_are_refused_with_the_next_step():
    with pytest.raises(ValueError, match="call the model once"):
        summarize(nn.LazyLinear(2), (1, 2))


def test_an_unknown_block_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match=r"the nearest .*'layer1'"):
        summarize(models.resnet18(), (1, 3, 64, 64))["layer_1"]


def test_search_finds_paths_and_kinds_in_any_case():
    found = summarize(small(), (2, 3, 8, 8))
    assert [row.path for row in found.search("NORM")] == ["1"]
    assert [row.path for row in found.search(" 5 ")] == ["5"]
    assert found.search("") == found.rows
    assert found.search("nothing") == []


def test_as_text_markdown_html_and_data():
    model = models.resnet18()
    freeze(model, "layer1")
    found = summarize(model, (1, 3, 64, 64))
    assert repr(found).startswith(
        "ResNet on 1×3×64×64: 11,689,512 parameters (11,541,544 trainable), 148.56 M multiply-adds"
    )
    assert "68 blocks" not in repr(found.table(depth=9))
    assert len(found.table(depth=1)) == 11
    assert "| layer1  | Sequential" in found.to_markdown(depth=1)
    html = found._repr_html_()
    assert (
        html.count("<summary>")
        == sum(1 for row in found.rows if any(o.path.startswith(f"{row.path}.") for o in found.rows)) + 1
    )
    data = found.to_dict()
    assert data["total_params"] == 11_689_512
    assert len(data["rows"]) == len(found.rows)
    assert "Adam, AdamW" in repr(found.memory())
    assert "most parameters in layer4, most activation memory in layer1" in repr(found.plot())
    assert found.plot()._repr_png_().startswith(b"\x89PNG")


def test_what_stands_in_a_name_is_escaped():
    model = nn.Sequential()
    model.add_module("<b>", type("<i>", (nn.Linear,), {})(1, 1))
    html = summarize(model, (1, 1))._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<i>(" not in html
    assert "&lt;i&gt;" in html


def test_a_model_of_one_layer_has_one_row():
    found = summarize(nn.Linear(2, 3), (4, 2))
    assert [(row.path, row.own_parameters, row.multiply_adds) for row in found.rows] == [("", 9, 24)]
    assert "Linear" in found._repr_html_()
    assert list(own_rows(nn.Linear(2, 3))) == [""]


def test_a_compiled_model_is_that_inside():
    model = small()
    assert summarize(torch.compile(model), (2, 3, 8, 8)).rows == summarize(model, (2, 3, 8, 8)).rows
