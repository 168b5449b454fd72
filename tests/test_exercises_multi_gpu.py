"""What beginners hand in for the exercises on several processes, and what they hear."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from ftlab.exercises.core import Outcome
from ftlab.exercises.multi_gpu import (
    clean_names,
    copies_that_learn,
    epochs_of_rank,
    inner_model,
    load_and_wrap,
    names_in_the_file,
    same_as_one,
    thaw_under_ddp,
    validation_share,
    who_calls,
    whole_batch_gradient,
)
from ftlab.multi_gpu import EachOnceSampler, shares, strip_prefixes, unwrap
from tests.answers import Answers

ANSWERS = Answers()
right, wrong = ANSWERS.right, ANSWERS.wrong


@wrong(inner_model, says="From a plain `nn.Linear` you gave a `dict`")
def the_names_instead_of_the_model(model):
    return dict(model.state_dict())


@wrong(inner_model, says="From a plain `nn.Linear` you gave a")
def the_first_child(model):
    return next(model.children(), None) or nn.Identity()


@right(inner_model)
def with_ftlab(model):
    return unwrap(model)


@wrong(load_and_wrap, says="are not those of what they are loaded into")
def prefix_in_the_wrong_direction(model, state):
    model.load_state_dict({f"module.{name}": value for name, value in state.items()})
    return nn.DataParallel(model)


@wrong(load_and_wrap, says="have not the values of the file")
def forgot_to_load(model, state):
    return nn.DataParallel(model)


@right(load_and_wrap)
def copied_by_hand(model, state):
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(state[name])
    return nn.DataParallel(model)


@wrong(clean_names, says="You gave a `list`")
def names_only(state):
    return list(state)


@wrong(clean_names, says="which the model does not have")
def the_last_part_only(state):
    return {name.split(".")[-1]: value for name, value in state.items()}


@wrong(clean_names, says="the values are not those of the names")
def values_forgotten(state):
    return dict.fromkeys(strip_prefixes(state))


@right(clean_names)
def clean_with_ftlab(state):
    return strip_prefixes(state)


@wrong(names_in_the_file, says="`weight.module` is not in the task's list")
def suffix():
    return dict.fromkeys(["wrapper", "inside", "model", "compiled", "unwrapped"], "weight.module")


@wrong(whole_batch_gradient, says="is not the gradient of the whole batch")
def weighted_by_one_over_the_count(gradients, counts):
    return sum(g / n for g, n in zip(gradients, counts, strict=True)) + 1


@wrong(whole_batch_gradient, says="something of type `list`")
def scaled_list(gradients, counts):
    return [g * n for g, n in zip(gradients, counts, strict=True)]


@right(whole_batch_gradient)
def with_average(gradients, counts):
    weights = torch.tensor(counts, dtype=torch.float32)
    return (torch.stack(gradients) * (weights / weights.sum())[:, None, None]).sum(0)


@wrong(copies_that_learn, says="carries no gradient")
def under_no_grad(model, batch, count):
    with torch.no_grad():
        return torch.cat([model(part) for part in batch.chunk(count)])


@wrong(copies_that_learn, says="the output is `list`")
def not_put_together(model, batch, count):
    return [model(part) for part in batch.chunk(count)]


@right(copies_that_learn)
def by_hand_with_ftlab(model, batch, count):
    from ftlab.multi_gpu import DataParallelByHand

    return DataParallelByHand(model, ["cpu"] * count)(batch)


@wrong(same_as_one, says="a parameter is nan away")
def same_with_a_rate_that_is_no_number():
    return 16, float("nan"), "the gradient is the mean over the ranks"


@wrong(same_as_one, says="is no number of images")
def a_share():
    return 0.25, 0.1, "the gradient is the mean over the ranks"


@wrong(validation_share, says="1 are measured by nobody")
def begins_at_one(length, rank, world_size):
    return range(rank + 1, length, world_size)


@right(validation_share)
def share_with_ftlab(length, rank, world_size):
    return EachOnceSampler(length, rank, world_size)


@wrong(epochs_of_rank, says="more than once, in the same order")
def shuffle_switched_off(dataset, rank, world_size, epochs):
    sampler = torch.utils.data.DistributedSampler(dataset, num_replicas=world_size, rank=rank, shuffle=False)
    orders = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    return orders


@right(epochs_of_rank)
def orders_with_ftlab(dataset, rank, world_size, epochs):
    return [epoch[rank] for epoch in shares(len(dataset), world_size, epochs=epochs).epochs]


@wrong(thaw_under_ddp, says="is not the model that was")
def a_part_wrapped_alone(ddp, part):
    part.requires_grad_(True)
    return nn.parallel.DistributedDataParallel(part)


@wrong(thaw_under_ddp, says="It gave back `None`")
def nothing_given_back(ddp, part):
    part.requires_grad_(True)
    nn.parallel.DistributedDataParallel(ddp.module)


@wrong(who_calls, says="is none of the two choices")
def everybody():
    return dict.fromkeys(who_calls.function(), "all")


@pytest.mark.parametrize(("exercise", "answer", "says"), ANSWERS.wrongs)
def test_a_beginner_s_answer_is_wrong_and_the_sentence_fits(exercise, answer, says):
    for seed in range(2):
        feedback = exercise.judge(answer, seed=seed)
        assert feedback.outcome is Outcome.WRONG, feedback
        assert says in feedback.message, feedback
        assert feedback.ask
        assert "could not go on" not in feedback.message


@pytest.mark.parametrize(("exercise", "answer"), ANSWERS.rights)
def test_a_right_answer_of_another_style_passes(exercise, answer):
    for seed in range(2):
        feedback = exercise.judge(answer, seed=seed)
        assert feedback.passed, feedback


def test_a_check_leaves_no_process_group_and_uses_one_that_is_there():
    assert thaw_under_ddp.judge(thaw_under_ddp.function).passed
    assert not dist.is_initialized()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert thaw_under_ddp.judge(thaw_under_ddp.function).passed
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()
