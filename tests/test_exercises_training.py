"""More answers to the exercises of training: wrong ones that beginners give, and right ones of other styles."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ftlab.exercises.core import Outcome
from ftlab.exercises.training import (
    accumulate,
    cat_probabilities,
    cycle_length,
    gradients,
    less_memory,
    mean_loss,
    mixed_step,
    same_loss,
    smoothed,
    squared_error,
    to_batch,
    train_clipped,
    visible,
    what_grows,
)
from ftlab.modes import evaluating
from ftlab.training import GradientClip, batch_of_one
from tests.answers import Answers
from tests.warned import only_known_warnings

ANSWERS = Answers()
right, wrong = ANSWERS.right, ANSWERS.wrong


@pytest.fixture(autouse=True)
def warned():
    """What an answer warns of is known, or fails."""
    with only_known_warnings():
        yield


# --- train_clipped


@wrong(train_clipped, says="NameError")
def clip_without_its_module(model, batches, optimizer, max_norm):
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        clip_grad_norm_(model.parameters(), max_norm)  # noqa: F821
        optimizer.step()


@wrong(train_clipped, says="used gradients with a norm of")
def clip_to_one_whatever_is_asked(model, batches, optimizer, max_norm):
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        optimizer.step()


@wrong(train_clipped, says="cut down more than needed")
def scale_every_gradient_to_the_norm(model, batches, optimizer, max_norm):
    owned = optimizer.param_groups[0]["params"]
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        norm = nn.utils.get_total_norm([p.grad for p in owned])
        for p in owned:
            p.grad *= max_norm / norm / 2
        optimizer.step()


@wrong(train_clipped, says="used gradients with a norm of")
def clip_the_loss(model, batches, optimizer, max_norm):
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).clamp(min=max_norm).backward()
        optimizer.step()


@wrong(train_clipped, says="used gradients with a norm of")
def clip_the_parameters(model, batches, optimizer, max_norm):
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for p in optimizer.param_groups[0]["params"]:
                p.clamp_(-max_norm, max_norm)
        optimizer.step()


@wrong(train_clipped, says="used gradients with a norm of")
def clip_a_norm_of_the_largest_number(model, batches, optimizer, max_norm):
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], max_norm, norm_type=float("inf"))
        optimizer.step()


@right(train_clipped)
def clip_with_ftlab(model, batches, optimizer, max_norm):
    clip = GradientClip(optimizer, max_norm)
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        clip()
        optimizer.step()


@right(train_clipped)
def freeze_what_nobody_trains(model, batches, optimizer, max_norm):
    owned = {id(p) for p in optimizer.param_groups[0]["params"]}
    for p in model.parameters():
        p.requires_grad_(id(p) in owned)
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()


@right(train_clipped)
def clear_the_whole_model_and_clip_a_part(model, batches, optimizer, max_norm):
    for x, y in batches:
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model[2].parameters(), max_norm)
        optimizer.step()


# --- mixed_step


@wrong(mixed_step, says="next to nothing")
def divide_by_the_scale_once_more(loss, model, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    for p in model.parameters():
        p.grad /= scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()


@wrong(mixed_step, says="AssertionError")
def backward_of_the_plain_loss(loss, model, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()


@wrong(mixed_step, says="the optimizer has made 0 steps")
def step_of_the_scaler_without_the_optimizer(loss, model, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    scaler.update()


@right(mixed_step)
def mixed_with_ftlab(loss, model, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    GradientClip(optimizer, max_norm, scaler=scaler)()
    scaler.step(optimizer)
    scaler.update()


# --- accumulate


@wrong(accumulate, says="the parameters are not those of steps with large batches")
def divide_by_the_number_of_batches(model, batches, optimizer, every):
    for start in range(0, len(batches), every):
        optimizer.zero_grad()
        for x, y in batches[start : start + every]:
            (F.cross_entropy(model(x), y) / len(batches)).backward()
        optimizer.step()


@wrong(accumulate, says="the parameters are not those of steps with large batches: they differ by up to nan")
def become_no_numbers(model, batches, optimizer, every):
    for start in range(0, len(batches), every):
        optimizer.zero_grad()
        for x, y in batches[start : start + every]:
            (F.cross_entropy(model(x), y) / every).backward()
        optimizer.step()
    with torch.no_grad():
        model[2].bias[0] = float("nan")


@wrong(accumulate, says="It raised `RuntimeError")
def backward_of_a_running_sum(model, batches, optimizer, every):
    total = 0
    for number, (x, y) in enumerate(batches, 1):
        total = total + F.cross_entropy(model(x), y) / every
        total.backward()
        if number % every == 0:
            optimizer.step()
            optimizer.zero_grad()


@wrong(accumulate, says="the optimizer made 3 steps")
def a_step_after_the_loop_in_any_case(model, batches, optimizer, every):
    for number, (x, y) in enumerate(batches, 1):
        (F.cross_entropy(model(x), y) / every).backward()
        if number % every == 0:
            optimizer.step()
            optimizer.zero_grad()
    optimizer.step()


@wrong(accumulate, says="the parameters are not those of steps with large batches")
def smaller_rate_instead(model, batches, optimizer, every):
    for group in optimizer.param_groups:
        group["lr"] /= every
    for start in range(0, len(batches), every):
        optimizer.zero_grad()
        for x, y in batches[start : start + every]:
            F.cross_entropy(model(x), y).backward()
        optimizer.step()


@right(accumulate)
def one_large_batch_after_all(model, batches, optimizer, every):
    for start in range(0, len(batches), every):
        x, y = map(torch.cat, zip(*batches[start : start + every], strict=True))
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


@right(accumulate)
def weigh_by_images(model, batches, optimizer, every):
    for start in range(0, len(batches), every):
        window = batches[start : start + every]
        count = sum(len(y) for _, y in window)
        optimizer.zero_grad()
        for x, y in window:
            (F.cross_entropy(model(x), y, reduction="sum") / count).backward()
        optimizer.step()


# --- gradients


@wrong(gradients, says="Four values were asked for")
def gradients_as_one():
    return 3.0


@wrong(gradients, says="After line 1, `weight.grad` is not None")
def gradients_of_nobody():
    return None, None, None, None


@wrong(gradients, says="For line 1 you gave the text `'three'`")
def gradients_in_words():
    return "three", "six", "six", "none"


@right(gradients)
def gradients_as_tensors():
    return torch.tensor(3.0), torch.tensor(6.0), torch.tensor(6.0), None


# --- cycle_length


@wrong(cycle_length, says="It raised `TypeError")
def length_of_a_list(epochs, batches, every):
    return epochs * len(batches)


@wrong(cycle_length, says="the rate ends at")
def one_window_more_always(epochs, batches, every):
    return epochs * (batches // every + 1)


@wrong(cycle_length, says="is a `Tensor`")
def length_as_tensor(epochs, batches, every):
    return epochs * torch.tensor(batches / every).ceil()


@right(cycle_length)
def count_the_windows(epochs, batches, every):
    return epochs * len(range(0, batches, every))


@right(cycle_length)
def negative_division(epochs, batches, every):
    return epochs * -(-batches // every)


# --- smoothed


@wrong(smoothed, says="your targets have the shape `(6,)`")
def smooth_the_numbers(labels, classes, amount):
    return (1 - amount) * labels + amount / classes


@wrong(smoothed, says="sums up to 0.9")
def take_and_give_nothing(labels, classes, amount):
    return (1 - amount) * F.one_hot(labels, classes)


@wrong(smoothed, says="It raised `RuntimeError: Index tensor must have the same number of dimensions")
def scatter_without_a_column(labels, classes, amount):
    return torch.zeros(len(labels), classes).scatter_(1, labels, 1.0)


@wrong(smoothed, says="the caller's own labels are changed")
def unsqueeze_in_place(labels, classes, amount):
    labels.unsqueeze_(1)
    return torch.full((len(labels), classes), amount / classes).scatter_(1, labels, 1 - amount + amount / classes)


@wrong(smoothed, says="the loss is not that of")
def smooth_with_softmax(labels, classes, amount):
    return F.one_hot(labels, classes).float().softmax(1)


@right(smoothed)
def smooth_by_index(labels, classes, amount):
    targets = torch.full((len(labels), classes), amount / classes)
    targets[range(len(labels)), labels] += 1 - amount
    return targets


@right(smoothed)
def smooth_by_comparison(labels, classes, amount):
    return (labels[:, None] == torch.arange(classes)) * (1 - amount) + amount / classes


@right(smoothed)
def smooth_with_lerp(labels, classes, amount):
    hot = F.one_hot(labels, classes).double()
    return torch.lerp(hot, torch.full_like(hot, 1 / classes), amount).float()


# --- same_loss


@wrong(same_loss, says="Not a set of names")
def one_pair_as_text():
    return "logits + cross_entropy"


@wrong(same_loss, says="`logits + ce`: no such name is in the task")
def pairs_misspelt():
    return {"logits + ce"}


@right(same_loss)
def pairs_as_tuple():
    return "log_softmax + cross_entropy", "log_softmax + nll_loss", "logits + cross_entropy"


# --- squared_error


@wrong(squared_error, says="With 4 images: It raised `RuntimeError")
def a_column_of_numbers_and_a_slice(outputs, labels):
    return F.mse_loss(outputs[:, :2], labels.view(2, 2).float())


@wrong(squared_error, says="counted one by one it is")
def not_a_number_squared(outputs, labels):
    return outputs.sum() * float("nan")


@wrong(squared_error, says="The loss is one number; yours is of type `str`")
def squared_error_in_words(outputs, labels):
    return f"loss: {((outputs - F.one_hot(labels, 3)) ** 2).mean()}"


@wrong(squared_error, says="The loss is one number; yours is of type `Tensor`")
def squared_error_not_reduced(outputs, labels):
    return F.mse_loss(outputs, F.one_hot(labels, 3).float(), reduction="none")


@wrong(mean_loss, says="You found nan")
def mean_loss_of_nothing(model, batches):
    return float("nan")


@wrong(squared_error, says="counted one by one it is")
def pick_the_right_outputs_only(outputs, labels):
    return (1 - outputs.gather(1, labels[:, None])).square().mean()


@wrong(squared_error, says="counted one by one it is")
def softmax_first(outputs, labels):
    return F.mse_loss(outputs.softmax(1), F.one_hot(labels, 3).float())


@right(squared_error)
def squares_with_eye(outputs, labels):
    return (outputs - torch.eye(outputs.shape[1])[labels]).pow(2).mean()


@right(squared_error)
def squares_in_a_module(outputs, labels):
    return nn.MSELoss()(outputs, (labels[:, None] == torch.arange(outputs.shape[1])).float()).item()


# --- to_batch


@wrong(to_batch, says="you made `(1, 3, 8, 5)`")
def swap_height_and_width(image):
    return torch.tensor(image[:, :, ::-1].copy()).float().permute(2, 1, 0)[None]


@wrong(to_batch, says="The image that was handed over has been changed")
def exchange_in_place(image):
    image[:, :, [0, 2]] = image[:, :, [2, 0]]
    return torch.tensor(image).permute(2, 0, 1).float()[None] / 255


@wrong(to_batch, says="It raised `RuntimeError: Could not infer dtype")
def a_tensor_of_nothing(image):
    return torch.tensor([None])


@wrong(to_batch, says="Your tensor has the type `torch.uint8`")
def whole_numbers(image):
    return torch.tensor(image[:, :, ::-1].copy()).permute(2, 0, 1)[None]


@wrong(to_batch, says="each pixel is in its place, and its number is another")
def mean_of_another_order(image):
    pixels = torch.tensor(image[:, :, ::-1].copy()).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor([0.406, 0.456, 0.485]), torch.tensor([0.225, 0.224, 0.229])
    return ((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))[None]


@wrong(to_batch, says="You gave a `ndarray`")
def stays_an_array(image):
    return image[np.newaxis]


@right(to_batch)
def with_ftlab_and_torchvision(image):
    from torchvision.transforms import Normalize

    return batch_of_one(image, Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), bgr=True).batch


@right(to_batch)
def by_einsum_and_index(image):
    pixels = torch.from_numpy(image.copy())[..., [2, 1, 0]].double() / 255
    pixels = (pixels - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    return torch.einsum("hwc->chw", pixels).float().unsqueeze(0)


# --- cat_probabilities


@wrong(cat_probabilities, says="For a batch of 1 the result has the shape `(1, 1)`")
def at_least_two_dimensions(model, images):
    return (
        torch.atleast_2d(model(images).sigmoid().squeeze())
        if len(images) == 1
        else model(images).sigmoid().squeeze()
    )


@wrong(cat_probabilities, says="no probabilities")
def forgets_the_sigmoid(model, images):
    return model(images).flatten()


@wrong(cat_probabilities, says="You gave a `list`")
def as_a_list(model, images):
    return model(images).sigmoid().flatten().tolist()


@right(cat_probabilities)
def squeeze_three_times(model, images):
    return model(images).sigmoid().squeeze(3).squeeze(2).squeeze(1)


@right(cat_probabilities)
def mean_over_pixels(model, images):
    return torch.sigmoid(model(images)).mean((1, 2, 3))


# --- mean_loss


@wrong(mean_loss, says="yours is of type `list`")
def all_losses(model, batches):
    model.eval()
    with torch.no_grad():
        found = [F.cross_entropy(model(x), y).item() for x, y in batches]
    model.train()
    return found


@wrong(mean_loss, says="are enough without a graph")
def detaches_in_the_end(model, batches):
    model.eval()
    total = count = 0
    for x, y in batches:
        total += F.cross_entropy(model(x), y, reduction="sum").detach()
        count += len(y)
    model.train()
    return total / count


@wrong(mean_loss, says="At its peak one batch takes")
def keeps_the_last_graph(model, batches):
    model.eval()
    total = count = 0
    for x, y in batches:
        loss = F.cross_entropy(model(x), y, reduction="sum")
        total += loss.item()
        count += len(y)
    model.train()
    return total / count


@wrong(mean_loss, says="Afterwards `bn1.num_batches_tracked` is not as it was")
def looks_once_more_in_train_mode(model, batches):
    with evaluating(model):
        total = sum(F.cross_entropy(model(x), y, reduction="sum") for x, y in batches)
    with torch.no_grad():
        model(batches[0][0])
    return total / sum(len(y) for _, y in batches)


@right(mean_loss)
def in_inference_mode(model, batches):
    model.eval()
    with torch.inference_mode():
        parts = [(F.cross_entropy(model(x), y).item(), len(y)) for x, y in batches]
    model.train()
    return sum(loss * count for loss, count in parts) / sum(count for _, count in parts)


@right(mean_loss)
def all_outputs_first(model, batches):
    model.eval()
    with torch.no_grad():
        outputs = torch.cat([model(x) for x, _ in batches])
    model.train()
    return F.cross_entropy(outputs, torch.cat([y for _, y in batches]))


# --- what_grows, less_memory, visible


@wrong(what_grows, says="`total`: no such name is in the task")
def grows_misspelt():
    return {"total"}


@wrong(what_grows, says="With `total += loss` each further batch keeps")
def nothing_grows():
    return set()


@right(what_grows)
def grows_as_tuple():
    return "total += loss", "outputs.append(output)"


@wrong(less_memory, says="Not a choice and a reason: you gave a `str`")
def only_a_choice():
    return "no_grad"


@wrong(less_memory, says="`gc` is none of the choices")
def another_choice():
    return "gc", "no graph"


@wrong(less_memory, says="Dropout was off before")
def right_for_dropout():
    return "no_grad", "dropout"


@wrong(visible, says="A dictionary with the keys")
def visible_as_list():
    return [2, 0]


@wrong(visible, says="With `'2,0'` the visible GPUs are not `None`")
def visible_nothing():
    return dict.fromkeys(("2,0", "0,x,1", "1,-1,0", "0,0", ""))


@pytest.mark.parametrize(("exercise", "answer", "says"), ANSWERS.wrongs)
def test_a_wrong_answer_is_named(exercise, answer, says):
    for seed in range(2):
        feedback = exercise.judge(answer, seed=seed)
        assert feedback.outcome is Outcome.WRONG, feedback
        assert says in feedback.message, feedback
        assert feedback.ask
        assert "could not go on" not in feedback.message


@pytest.mark.parametrize(("exercise", "answer"), ANSWERS.rights)
def test_a_right_answer_of_another_style_passes(exercise, answer):
    for seed in range(3):
        feedback = exercise.judge(answer, seed=seed)
        assert feedback.passed, feedback


def _rows_of(labels, classes, amount):
    return labels


def _all_numbers(labels, classes, amount):
    return [[1.0 / classes] * classes for _ in labels]


# what was answered, and a part of the sentence and of the question that fit it
ASKED = [
    (gradients, lambda: ("3", "6", "6", "None"), "For line 1 you gave the text", "without quotes"),
    (gradients, lambda: (3.0, 6.0, 6.0, "None"), "For line 4 you gave the text", "without quotes"),
    (smoothed, _rows_of, "the shape `(6,)`", "a column for each class"),
    (smoothed, lambda *given: smoothed.function(*given).T, "the shape `(5, 6)`", "a row for each of the 6"),
    (smoothed, _all_numbers, "You gave a `list`", "What does `cross_entropy` take"),
    (
        same_loss,
        lambda: {"log_softmax + nll_loss"},
        "`logits + cross_entropy`",
        "What does `cross_entropy` do first",
    ),
    (
        same_loss,
        lambda: {"logits + cross_entropy", "log_softmax + cross_entropy"},
        "you left it out",
        "`nll_loss` add",
    ),
    (cycle_length, lambda *given: str(cycle_length.function(*given)), "is a `str`", "gives an `int`"),
    (
        cycle_length,
        lambda *given: cycle_length.function(*given) + 1,
        "a whole cycle at 4e-07",
        "did you count besides",
    ),
    (less_memory, lambda: ("del", "cache"), "another choice lowers it more", "only tidies up"),
    (visible, lambda: {**visible.function(), "0,x,1": 0}, "a list of numbers was asked for", "only one"),
    (visible, lambda: {**visible.function(), "": [0, 1, 2]}, "With `''`", "Does an empty value name a GPU"),
]


@pytest.mark.parametrize(("exercise", "answer", "says", "asks"), ASKED)
def test_the_question_fits_the_answer(exercise, answer, says, asks):
    feedback = exercise.judge(answer)
    assert feedback.outcome is Outcome.WRONG, feedback
    assert says in feedback.message, feedback
    assert asks in feedback.ask, feedback


def test_each_exercise_has_beginners_here():
    exercises = {parameters.values[0].name for parameters in itertools.chain(ANSWERS.wrongs, ANSWERS.rights)}
    assert len(exercises) == 14
