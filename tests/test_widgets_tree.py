import pytest
from torch import nn

from ftlab.widgets.blocks import blocks, outline, tops
from ftlab.widgets.tree import NetworkTree


def row(path, state=True, **more):
    return {"path": path, "name": path or "model", "kind": "<Net>", "size": "42", "state": state, **more}


ROWS = [
    row("", None),
    row("stem"),
    row("body", False),
    row("body.0", False),
    row("body.0.conv", False),
    row("head"),
]


@pytest.fixture
def tree():
    return NetworkTree(ROWS)


def paths(tree):
    return [row["path"] for row in tree.shown]


def test_parents_and_depths_follow_from_the_paths(tree):
    assert [(row["parent"], row["depth"]) for row in tree.rows] == [
        ("", 0), ("", 1), ("", 1), ("body", 2), ("body.0", 3), ("", 1),
    ]  # fmt: skip


def test_at_first_the_model_is_unfolded(tree):
    assert paths(tree) == ["", "stem", "body", "head"]
    assert repr(tree) == "model: partly, 3 blocks shown"


def test_expanding_shows_what_leads_to_a_row_too(tree):
    tree.expand("body.0")
    assert paths(tree) == ["", "stem", "body", "body.0", "body.0.conv", "head"]


def test_folding_hides_all_below_and_remembers_what_was_unfolded(tree):
    tree.expand("body.0")
    tree.fold("body")
    assert paths(tree) == ["", "stem", "body", "head"]
    tree.expand("body")
    assert "body.0.conv" in paths(tree)


def test_the_model_itself_can_be_folded(tree):
    tree.fold("")
    assert paths(tree) == [""]


def test_new_rows_leave_the_folds_alone(tree):
    tree.expand("body")
    tree.update([row("", None), row("body"), row("body.1")])
    assert paths(tree) == ["", "body", "body.1"]


def test_toggle_and_a_message_from_the_view_do_the_same(tree):
    heard = []
    tree.on_toggle(heard.append)
    tree.toggle("body")
    tree._handle_custom_msg({"kind": "toggle", "path": "head"}, [])
    assert heard == ["body", "head"]


@pytest.mark.parametrize("method", ["toggle", "expand", "fold"])
def test_an_unknown_block_is_named_with_those_that_there_are(tree, method):
    with pytest.raises(KeyError, match=r"no block 'layer9' in the tree; the first ones are '', 'stem'"):
        getattr(tree, method)("layer9")


def test_the_twin_shows_the_rows_in_sight_with_states_as_words(tree):
    html = tree.to_html()
    assert html.count("<tr>") == 1 + 4
    assert "&lt;Net&gt;" in html
    for word in ("trains", "frozen", "partly"):
        assert word in html


def test_in_the_twin_names_stand_left_and_numbers_right(tree):
    html = tree.to_html()
    assert html.count("<t") == 1 + html.count("<tr>") + html.count(
        '"text-align: '
    )  # each cell says where it stands
    assert html.count('"text-align: right"') == html.count("<tr>")  # the sizes, and what stands above them


def test_the_twin_says_what_happened_and_otherwise_the_note():
    rows = [row("", note="3 norms held"), row("a", mark="moved", reason="gradient", note="3 norms move")]
    html = NetworkTree(rows).to_html()
    assert "3 norms held" in html
    assert "moved: gradient" in html
    assert "3 norms move" not in html


# -- blocks ----------------------------------------------------------------------------------------


def test_blocks_are_modules_with_parameters_and_parameters_between_modules():
    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.class_token = nn.Parameter(nn.Linear(1, 4).weight.detach())
            self.attention = nn.MultiheadAttention(4, 1)
            self.dropout = nn.Dropout()

    found = {block.path: (block.kind, block.size) for block in blocks(Transformer())}
    assert found == {
        "": ("Transformer", 84),
        "class_token": ("parameter", 4),
        "attention": ("MultiheadAttention", 80),
        "attention.in_proj_weight": ("parameter", 48),
        "attention.in_proj_bias": ("parameter", 12),
        "attention.out_proj": ("NonDynamicallyQuantizableLinear", 20),
    }


def test_a_tied_parameter_counts_once_in_the_whole():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert blocks(model)[0].size == 9 + 3 + 3
    assert [block.size for block in blocks(model)[1:]] == [12, 12]


def test_trains_is_true_false_or_in_part():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    model[0].requires_grad_(False)
    assert [block.trains for block in blocks(model)] == [None, False, True]


def test_a_single_layer_is_its_own_block():
    found = blocks(nn.Linear(2, 2))
    assert tops(found, outline(found)) == found


@pytest.mark.parametrize(
    ("name", "unfolded", "count"),
    [
        ("resnet18", [""], 7),
        ("mobilenet_v3_large", ["", "features"], 18),
        ("vit_b_16", ["", "encoder", "encoder.layers"], 17),
    ],
)
def test_the_outline_of_known_models(name, unfolded, count):
    import torch
    import torchvision

    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    found = blocks(model)
    assert outline(found) == unfolded
    shown = tops(found, unfolded)
    assert len(shown) == count
    assert sum(block.size for block in shown) == found[0].size
