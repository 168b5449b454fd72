"""More answers to the exercises of learning rates: wrong ones of beginners, and right ones of other styles."""

import pytest
import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LinearLR, OneCycleLR

import ftlab.learning_rates
from ftlab.exercises import learning_rates
from tests.answers import Answers, is_wrong, passes

answers = Answers()
right, wrong = answers.right, answers.wrong

# --- two_rates


@right(learning_rates.two_rates)
def by_ftlab(model, new, lr):
    return ftlab.learning_rates.parameter_groups(model, {new: lr}, default=lr / 10)


@right(learning_rates.two_rates)
def a_tuple_with_generators(model, new, lr):
    fresh = set(model.get_submodule(new).parameters())
    rest = (p for p in model.parameters() if p not in fresh)
    return {"params": model.get_submodule(new).parameters(), "lr": lr}, {"params": rest, "lr": lr / 10}


@right(learning_rates.two_rates)
def from_name_to_group(model, new, lr):
    groups = {True: {"params": [], "lr": lr}, False: {"params": [], "lr": 0.1 * lr}}
    for name, parameter in model.named_parameters():
        groups[f"{name}.".startswith(f"{new}.")]["params"].append(parameter)
    return list(groups.values())


@wrong(learning_rates.two_rates, "It raised `RuntimeError")
def in_on_a_list(model, new, lr):
    fresh = list(model.get_submodule(new).parameters())
    rest = [p for p in model.parameters() if p not in fresh]
    return [{"params": fresh, "lr": lr}, {"params": rest, "lr": lr / 10}]


@wrong(learning_rates.two_rates, "You gave a `SGD`, no list of dictionaries")
def the_optimizer(model, new, lr):
    return SGD(from_name_to_group(model, new, lr), lr=lr)


@wrong(learning_rates.two_rates, "should learn at 0.1, but")
def the_other_way_round(model, new, lr):
    first, second = from_name_to_group(model, new, lr)
    return [{**first, "lr": lr / 10}, {**second, "lr": lr}]


@wrong(learning_rates.two_rates, 'A dictionary has no "params"; it has `parameters`, `lr`')
def parameters_by_another_key(model, new, lr):
    return [{"parameters": list(model.parameters()), "lr": lr}]


@wrong(learning_rates.two_rates, "You gave a `list` with a `generator` in it, no list of dictionaries")
def no_dictionaries(model, new, lr):
    return [model.get_submodule(new).parameters(), model.parameters()]


@wrong(learning_rates.two_rates, "A rate is a number; yours is of type `str`")
def rate_as_text(model, new, lr):
    return [{"params": list(model.parameters()), "lr": str(lr)}]


@wrong(learning_rates.two_rates, "the optimizer's own rate")
def no_rate_for_the_rest(model, new, lr):
    first, second = from_name_to_group(model, new, lr)
    return [first, {"params": second["params"]}]


@wrong(learning_rates.two_rates, "all else should learn at 0.01, but")
def without_the_dot(model, new, lr):
    inside = [p for name, p in model.named_parameters() if name.startswith(new)]
    rest = [p for name, p in model.named_parameters() if not name.startswith(new)]
    return [{"params": inside, "lr": lr}, {"params": rest, "lr": lr / 10}]


# --- not_trained


@right(learning_rates.not_trained)
def by_xray(model, optimizer):
    return set(ftlab.learning_rates.xray(model, optimizer).flags.get("orphan", []))


@right(learning_rates.not_trained)
def the_keys_of_a_dictionary(model, optimizer):
    owned = {p for group in optimizer.param_groups for p in group["params"]}
    return {name: p for name, p in model.named_parameters() if p.requires_grad and p not in owned}.keys()


@wrong(learning_rates.not_trained, "no set of names")
def the_tensors(model, optimizer):
    owned = {p for group in optimizer.param_groups for p in group["params"]}
    return [p for p in model.parameters() if p not in owned]


@wrong(learning_rates.not_trained, "no set of names")
def how_many(model, optimizer):
    return len(the_keys_of_a_dictionary(model, optimizer))


@right(learning_rates.not_trained)
def yielded(model, optimizer):
    yield from the_keys_of_a_dictionary(model, optimizer)


@wrong(learning_rates.not_trained, "The optimizer has all parameters")
def all_trainable(model, optimizer):
    return {name for name, p in model.named_parameters() if p.requires_grad}


# --- train_epochs


@right(learning_rates.train_epochs)
def cleared_behind(batches, loss, optimizer, scheduler, epochs):
    for epoch in range(1, epochs + 1):
        for batch in batches:
            value = loss(batch)
            value.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        if epoch < epochs:
            scheduler.step()


@right(learning_rates.train_epochs)
def per_batch_but_at_the_last(batches, loss, optimizer, scheduler, epochs):
    for _ in range(epochs):
        for number, batch in enumerate(batches):
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
            if number == len(batches) - 1:
                scheduler.step()


@wrong(learning_rates.train_epochs, "with the gradients of 2 batches instead of one")
def never_cleared(batches, loss, optimizer, scheduler, epochs):
    for _ in range(epochs):
        for batch in batches:
            loss(batch).backward()
            optimizer.step()
        scheduler.step()


@wrong(learning_rates.train_epochs, "with the gradients of 2 batches instead of one")
def cleared_per_epoch(batches, loss, optimizer, scheduler, epochs):
    for _ in range(epochs):
        optimizer.zero_grad()
        for batch in batches:
            loss(batch).backward()
            optimizer.step()
        scheduler.step()


@wrong(learning_rates.train_epochs, "with the gradients of 0 batches instead of one")
def cleared_too_late(batches, loss, optimizer, scheduler, epochs):
    for _ in range(epochs):
        for batch in batches:
            loss(batch).backward()
            optimizer.zero_grad()
            optimizer.step()
        scheduler.step()


@wrong(learning_rates.train_epochs, "step 6 was made at 1 instead of 0.1")
def only_the_first_time(batches, loss, optimizer, scheduler, epochs):
    for epoch in range(epochs):
        for batch in batches:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
        if epoch == 0:
            scheduler.step()


@wrong(learning_rates.train_epochs, "the optimizer made 3 steps")
def one_epoch(batches, loss, optimizer, scheduler, epochs):
    for batch in batches:
        optimizer.zero_grad()
        loss(batch).backward()
        optimizer.step()
    scheduler.step()


# --- rates_of_epochs, keep_ratio


@right(learning_rates.rates_of_epochs)
def computed():
    return tuple(0.001 * 0.1 ** (epoch // 10) for epoch in (9, 10, 25))


@wrong(learning_rates.rates_of_epochs, "Three rates were asked for")
def a_dictionary():
    return {9: 0.001, 10: 0.0001, 25: 0.00001}


@wrong(learning_rates.rates_of_epochs, "'1e-3' is a text, no number")
def texts():
    return "1e-3", "1e-4", "1e-5"


@wrong(learning_rates.keep_ratio, "`StepLR` is none of the choices")
def with_its_class():
    return "StepLR", "multiplies"


@wrong(learning_rates.keep_ratio, "`multiplies` is none of the choices")
def reason_first():
    return "multiplies", "step"


@wrong(learning_rates.keep_ratio, "`['step']` is none of the choices")
def choice_in_a_list():
    return ["step"], "multiplies"


@wrong(learning_rates.keep_ratio, "`None` is none of the reasons")
def without_a_reason():
    return "step", None


# --- one_cycle


@right(learning_rates.one_cycle)
def with_keywords(optimizer, epochs, batches):
    highest = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=highest, steps_per_epoch=batches, epochs=epochs, pct_start=0.2)


@wrong(learning_rates.one_cycle, "You gave a `list`, no scheduler")
def one_per_group(optimizer, epochs, batches):
    return [OneCycleLR(optimizer, group["lr"], total_steps=epochs * batches) for group in optimizer.param_groups]


@wrong(learning_rates.one_cycle, "The scheduler belongs to another optimizer")
def of_a_copy(optimizer, epochs, batches):
    other = SGD([torch.ones(1, requires_grad=True)], lr=0.1, momentum=0.9)
    return OneCycleLR(other, 0.1, total_steps=epochs * batches)


@wrong(learning_rates.one_cycle, "gets up to 0.1")
def the_first_rate_for_all(optimizer, epochs, batches):
    return OneCycleLR(optimizer, optimizer.param_groups[-1]["lr"], total_steps=epochs * batches)


@wrong(learning_rates.one_cycle, "It raised `ValueError")
def without_a_length(optimizer, epochs, batches):
    return OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups])


@wrong(learning_rates.one_cycle, "gets up to 0.1")
def ten_times_as_high(optimizer, epochs, batches):
    highest = [10 * group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, highest, total_steps=epochs * batches)


# --- go_on


@right(learning_rates.go_on)
def as_a_list(parameters, state):
    optimizer = SGD(parameters, lr=0.5, momentum=0.9)
    scheduler = LinearLR(optimizer, start_factor=0.1, total_iters=8)
    for thing, name in ((scheduler, "scheduler"), (optimizer, "optimizer")):
        thing.load_state_dict(state[name])
    return [optimizer, scheduler]


@wrong(learning_rates.go_on, "You gave `LinearLR, SGD`, no optimizer and scheduler")
def scheduler_first(parameters, state):
    optimizer, scheduler = as_a_list(parameters, state)
    return scheduler, optimizer


@wrong(learning_rates.go_on, "You gave `SGD`")
def the_optimizer_alone(parameters, state):
    return as_a_list(parameters, state)[0]


@wrong(learning_rates.go_on, "Epoch 5 was trained at")
def by_last_epoch(parameters, state):
    optimizer = SGD(parameters, lr=0.5, momentum=0.9)
    optimizer.load_state_dict(state["optimizer"])
    return optimizer, LinearLR(optimizer, 0.1, total_iters=8, last_epoch=4)


@wrong(learning_rates.go_on, "The momentum of the optimizer is not that of the state")
def stepped_once_more(parameters, state):
    optimizer, scheduler = as_a_list(parameters, state)
    optimizer.step()
    scheduler.step()
    return optimizer, scheduler


# --- new_rate


@right(learning_rates.new_rate)
def with_a_new_dictionary(optimizer, state, lr):
    groups = [{**group, "lr": lr} for group in state["param_groups"]]
    optimizer.load_state_dict({**state, "param_groups": groups})


@wrong(learning_rates.new_rate, "a different number of parameter groups")
def a_new_optimizer(optimizer, state, lr):
    optimizer = Adam([p for group in optimizer.param_groups for p in group["params"]], lr=lr)
    optimizer.load_state_dict(state)


@wrong(learning_rates.new_rate, "the rates of the groups are [0.001, 0.001, 0.001]")
def an_attribute(optimizer, state, lr):
    optimizer.load_state_dict(state)
    optimizer.lr = lr


@wrong(learning_rates.new_rate, "the rates of the groups are [5e-05, 5e-05, 5e-05]")
def scaled(optimizer, state, lr):
    optimizer.load_state_dict(state)
    for group in optimizer.param_groups:
        group["lr"] *= lr


# --- relative_update


@right(learning_rates.relative_update)
def in_double(parameter, step):
    before = parameter.detach().double().clone()
    step()
    return float(
        torch.linalg.vector_norm(parameter.detach().double() - before) / torch.linalg.vector_norm(before)
    )


@right(learning_rates.relative_update)
def as_a_tensor(parameter, step):
    before = parameter.data.clone()
    step()
    return (parameter.data - before).norm() / before.norm()


@wrong(learning_rates.relative_update, "you found a change of exactly 0")
def by_numpy_without_a_copy(parameter, step):
    before = parameter.detach().numpy()
    step()
    after = parameter.detach().numpy()
    return float(((after - before) ** 2).sum() ** 0.5 / (before**2).sum() ** 0.5)


@wrong(learning_rates.relative_update, "is one number; yours is of type `Tensor`")
def value_by_value(parameter, step):
    before = parameter.detach().clone()
    step()
    return (parameter.detach() - before) / before


@wrong(learning_rates.relative_update, "not the size of the change over the size before")
def a_difference_of_sizes(parameter, step):
    before = parameter.detach().norm().item()
    step()
    return (parameter.detach().norm().item() - before) / before


@wrong(learning_rates.relative_update, "`step` was called 0 times")
def never_stepped(parameter, step):
    return 0.1


@pytest.mark.parametrize(("exercise", "answer"), answers.rights)
def test_right_in_another_style(exercise, answer):
    passes(exercise, answer)


@pytest.mark.parametrize(("exercise", "answer", "says"), answers.wrongs)
def test_wrong_and_told_why(exercise, answer, says):
    is_wrong(exercise, answer, says)
