"""More answers to the exercises of freezing: wrong ones that beginners give, and right ones of other styles."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

import ftlab.freezing
from ftlab.exercises.freezing import (
    cheaper_half,
    classify,
    freeze_all_but_head,
    freeze_backbone,
    freeze_now,
    hold_batch_norm,
    replace_head,
    split,
    thaw,
    train_only,
    what_moves,
)
from ftlab.exercises.models import SmallResNet
from tests.answers import Answers, is_wrong, passes

answers = Answers()
right, wrong = answers.right, answers.wrong


# --- freeze_backbone

MODEL = SmallResNet()  # a model in another cell of the notebook


@wrong(freeze_backbone, says="`fc.bias` should learn, and did not move")
def thaw_the_weight_and_forget_the_bias(model):
    model.requires_grad_(False)
    model.fc.weight.requires_grad = True


@wrong(freeze_backbone, says="Nothing was switched off in the model that was handed over")
def freeze_what_state_dict_gives(model):
    for name, tensor in model.state_dict().items():
        tensor.requires_grad = name.startswith("fc")


@wrong(freeze_backbone, says="Nothing was switched off in the model that was handed over")
def freeze_the_model_of_another_cell(mine):
    MODEL.requires_grad_(False)
    MODEL.fc.requires_grad_(True)


@wrong(freeze_backbone, says="AttributeError: 'generator' object has no attribute 'requires_grad'")
def ask_a_generator(model):
    assert not model.parameters().requires_grad


@wrong(freeze_backbone, says="`conv1.weight` should be held, and still moved")
def zero_the_gradient_by_hook(model):
    model.requires_grad_(False)
    model.conv1.weight.requires_grad_(True)
    model.conv1.weight.register_hook(torch.zeros_like)  # weight decay needs no gradient
    model.fc.requires_grad_(True)


@wrong(freeze_backbone, says="It raised `TypeError: 'SmallResNet' object is not subscriptable`")
def take_the_last_of_a_resnet(model):
    model.requires_grad_(False)
    model[-1].requires_grad_(True)


@wrong(freeze_backbone, says="moved nothing at all")
def thaw_a_name_of_its_own(model):
    model.requires_grad_(False)
    for parameter in model.fc.parameters():
        parameter.trainable = True


@wrong(freeze_backbone, says="and still moved in training")
def freeze_one_child_after_the_other_and_return_early(model):
    for name, child in model.named_children():
        if name != "fc":
            child.requires_grad_(False)
            return


@right(freeze_backbone)
def freeze_with_ftlab(model):
    ftlab.freezing.freeze(model)
    ftlab.freezing.unfreeze(model, "fc")


@right(freeze_backbone)
def freeze_names_in_a_comprehension(model):
    [p.requires_grad_(False) for n, p in model.named_parameters() if n.partition(".")[0] != "fc"]


@right(freeze_backbone)
def fresh_head_on_a_frozen_backbone(model):
    model.requires_grad_(False)
    model.fc = nn.Linear(model.fc.in_features, model.fc.out_features)


# --- train_only


@wrong(train_only, says="moved nothing at all")
def compare_full_names(model, names):
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in names


@wrong(train_only, says="With `names=['features.10.block.0', 'features.12']`")
def what_fits_the_first_example_only(model, names):
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)


@wrong(train_only, says="It raised `ValueError: invalid literal for int() with base 10: 'classifier'`")
def index_the_features(model, names):
    model.requires_grad_(False)
    for name in names:
        model.features[int(name.split(".")[-1])].requires_grad_(True)


@wrong(train_only, says="should learn, and did not move")
def the_first_name_returns(model, names):
    model.requires_grad_(False)
    for name in names:
        model.get_submodule(name).requires_grad_(True)
        return


@right(train_only)
def train_only_with_ftlab(model, names):
    ftlab.freezing.freeze(model)
    ftlab.freezing.unfreeze(model, *names)


@right(train_only)
def train_only_by_modules(model, names):
    chosen = {id(p) for n, m in model.named_modules() if n in names for p in m.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad = id(parameter) in chosen


# --- replace_head


@wrong(replace_head, says="With `num_classes=5` the model cannot run any more")
def width_found_by_trial(model, num_classes):
    model.requires_grad_(False)
    model.fc = nn.Linear(64, num_classes)


@wrong(replace_head, says="With `num_classes=5` four images gave scores of shape `(4, 2)`")
def classes_by_heart(model, num_classes):
    model.requires_grad_(False)
    model.fc = nn.Linear(model.fc.in_features, 2)


@wrong(replace_head, says="The new head did not move")
def head_made_in_no_grad_and_frozen(model, num_classes):
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    for parameter in model.parameters():
        parameter.requires_grad = False


@right(replace_head)
def cut_the_old_weight(model, num_classes):
    ftlab.freezing.freeze(model)
    model.fc = nn.Sequential(nn.Dropout(0.1), nn.Linear(model.fc.in_features, num_classes))


# --- freeze_all_but_head


@wrong(freeze_all_but_head, says="On a small MobileNetV3: `classifier.0.bias`")
def ask_for_each_name(model):
    model.requires_grad_(False)
    for name in ("fc", "classifier", "heads", "head"):
        if hasattr(model, name):
            getattr(model, name).requires_grad_(True)


@wrong(freeze_all_but_head, says="On a small MobileNetV3: `classifier.0.bias`")
def the_first_by_number(model):
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad = index >= 39  # it fits the ResNet


@right(freeze_all_but_head)
def the_last_of_all_modules(model):
    model.requires_grad_(False)
    list(model.modules())[-1].requires_grad_(True)


@right(freeze_all_but_head)
def all_but_head_with_ftlab(model):
    (*_, head) = (module for module in model.modules() if isinstance(module, nn.Linear))
    ftlab.freezing.freeze(model)
    ftlab.freezing.unfreeze(model, head)


# --- split


@wrong(split, says="In a list there is something of type `tuple`")
def pairs_of_names_and_parameters(model, part):
    return list(part.named_parameters()), list(model.named_parameters())


@wrong(split, says="what came back is of type `list`")
def one_list(model, part):
    return [p for p in model.parameters() if all(p is not q for q in part.parameters())]


@wrong(split, says="In a list there is something of type `int`")
def numbers_instead_of_parameters(model, part):
    ids = {id(p) for p in part.parameters()}
    return list(ids), [p for p in model.parameters() if id(p) not in ids]


@wrong(split, says="It gave back `None`")
def forgotten_return(model, part):
    ids = {id(p) for p in part.parameters()}
    [p for p in model.parameters() if id(p) in ids]


@wrong(split, says="in the second list")
def by_the_flag(model, part):
    part.requires_grad_(False)
    return list(part.parameters()), [p for p in model.parameters() if p.requires_grad or p.ndim == 2]


@right(split)
def by_address(model, part):
    addresses = {p.data_ptr() for p in part.parameters()}
    return list(part.parameters()), [p for p in model.parameters() if p.data_ptr() not in addresses]


@right(split)
def by_the_flag_put_back(model, part):
    part.requires_grad_(False)
    outside = tuple(p for p in model.parameters() if p.requires_grad)
    part.requires_grad_(True)
    return tuple(part.parameters()), outside


# --- thaw


@wrong(thaw, says="param_group must be a dict")
def a_generator_for_a_group(part, optimizer, lr):
    part.requires_grad_(True)
    optimizer.add_param_group(part.parameters())


@wrong(thaw, says="`layer4` learns with a rate of 0.001")
def a_tenth_of_the_rate(part, optimizer, lr):
    part.requires_grad_(True)
    optimizer.add_param_group({"params": part.parameters(), "lr": lr / 10})


@wrong(thaw, says="did not move")
def only_the_weights(part, optimizer, lr):
    part.requires_grad_(True)
    weights = [p for n, p in part.named_parameters() if n.endswith("weight")]
    optimizer.add_param_group({"params": weights, "lr": lr})


@wrong(thaw, says="The head `fc`, which was learning, does not move any more")
def replace_what_the_optimizer_has(part, optimizer, lr):
    part.requires_grad_(True)
    optimizer.param_groups[0]["params"] = list(part.parameters())
    optimizer.param_groups[0]["lr"] = lr


@wrong(thaw, says="none of its parameters gets a gradient")
def thaw_an_attribute(part, optimizer, lr):
    part.requires_grad = True
    optimizer.add_param_group({"params": part.parameters(), "lr": lr})


@right(thaw)
def thaw_with_initial_rate(part, optimizer, lr):
    ftlab.freezing.unfreeze(part)
    optimizer.add_param_group({"params": list(part.parameters()), "lr": lr, "initial_lr": lr})


# --- freeze_now


@wrong(freeze_now, says="Each has a gradient, of zeros. `grad` is now an attribute of `layer4` itself")
def gradient_of_the_module(part, optimizer):
    part.requires_grad_(False)
    part.grad = None


@wrong(freeze_now, says="of the frozen part still moved. Each has a gradient, of zeros.")
def forget_all_moments_only(part, optimizer):
    part.requires_grad_(False)
    optimizer.state.clear()


@wrong(freeze_now, says="should go on learning, and stands still")
def freeze_one_more_for_good_measure(part, optimizer):
    for parameter in itertools.chain(part.parameters(), optimizer.param_groups[0]["params"][:3]):
        parameter.requires_grad = False
        parameter.grad = None


@right(freeze_now)
def freeze_now_with_ftlab(part, optimizer):
    ftlab.freezing.freeze(part)


@right(freeze_now)
def zero_grad_of_all_to_none(part, optimizer):
    part.requires_grad_(False)
    optimizer.zero_grad()


# --- hold_batch_norm


@wrong(hold_batch_norm, says="`layer1.0.bn1.num_batches_tracked`")
def only_the_outermost(model):
    for module in model.children():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True: None


@wrong(hold_batch_norm, says="moved while the loop trained the head")
def the_wrong_class(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.register_forward_pre_hook(lambda module, inputs: module.eval() and None)


@wrong(hold_batch_norm, says="other features than in eval mode before your call")
def no_batch_norm_no_drift(model):
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())


@wrong(hold_batch_norm, says="other features than in eval mode before your call")
def frozen_batch_norm_without_its_statistics(model):
    replace_norms(model, lambda norm: FrozenBatchNorm2d(norm.num_features))


@wrong(hold_batch_norm, says="moved while the loop trained the head")
def eval_in_the_loop_that_is_not_mine(model):
    model.train()
    for module in model.modules():
        if "Batch" in type(module).__name__:
            module.train(False)


def replace_norms(model, make):
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, make(child))


@right(hold_batch_norm)
def frozen_batch_norm_with_its_statistics(model):
    def frozen(norm):
        held = FrozenBatchNorm2d(norm.num_features)
        held.load_state_dict(norm.state_dict())
        return held

    replace_norms(model, frozen)


@right(hold_batch_norm)
def hold_with_ftlab(model):
    ftlab.freezing.freeze(model)
    ftlab.freezing.unfreeze(model, "fc")


@right(hold_batch_norm)
def write_the_forward_anew(model):
    def forward(norm):
        return lambda x: F.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.forward = forward(module)


# --- what_moves and cheaper_half


@wrong(what_moves, says="`model.fc.weight`: no such name is in the task")
def names_with_the_variable():
    return {"model.fc.weight"}


@wrong(what_moves, says="What you name moves. 5 more in the list moved too.")
def nothing_moves():
    return set()


@wrong(what_moves, says="Not a set of names: what you gave is of type `int`")
def a_number():
    return 5


@right(what_moves)
def as_a_dictionary_with_reasons():
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return {"fc.weight": "gradient", "fc.bias": "gradient"} | {f"bn.{name}": "batch norm" for name in buffers}


@wrong(cheaper_half, says="is not in the task's lists")
def reason_in_words_of_ones_own():
    return "front", "because backward ends early"


@wrong(cheaper_half, says="is not in the task's lists")
def the_reason_first():
    return "position", "front"


# --- classify


@wrong(classify, says="The scores carry no gradient")
def scores_as_numbers(adapter, backbone, head, images):
    return head(backbone(adapter(images))).detach()


@wrong(classify, says="The scores are not those of the three modules, one after the other")
def classes_instead_of_scores(adapter, backbone, head, images):
    return head(backbone(adapter(images))).argmax(dim=1)


@wrong(classify, says="The scores are not those of the three modules, one after the other")
def backbone_in_train_mode(adapter, backbone, head, images):
    return head(backbone.train()(adapter(images)))


@wrong(classify, says="the adapter did not")
def tell_the_adapter_to_learn(adapter, backbone, head, images):
    adapter.requires_grad_(True)
    with torch.no_grad():
        features = backbone(adapter(images))
    return head(features)


@wrong(classify, says="The adapter moved in a training step, the head did not")
def head_cut_off(adapter, backbone, head, images):
    return F.linear(backbone(adapter(images)), head.weight.detach(), head.bias.detach())


@right(classify)
def backbone_frozen_once_more(adapter, backbone, head, images):
    ftlab.freezing.freeze(backbone)
    return head(backbone(adapter(images)))


@pytest.mark.parametrize(("exercise", "answer", "says"), answers.wrongs)
def test_a_beginner_s_answer_is_wrong_and_the_sentence_fits(exercise, answer, says):
    is_wrong(exercise, answer, says)


@pytest.mark.parametrize(("exercise", "answer"), answers.rights)
def test_a_right_answer_of_another_style_passes(exercise, answer):
    passes(exercise, answer)


@pytest.mark.parametrize("answer", [set(), {"fc.weight"}, {"conv.weight"}, {"bn.weight", "bn.bias"}])
def test_a_wrong_prediction_does_not_name_what_was_left_out(answer):
    said = repr(what_moves.judge(answer))
    right_names = {"bn.running_mean", "bn.running_var", "bn.num_batches_tracked", "fc.bias"}
    assert not [name for name in right_names - answer if name in said]
