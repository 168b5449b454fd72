"""Going on: what is needed, everything back in its place, moments by name."""

import copy

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LinearLR

from ftlab.checkpoints.resuming import ablate, verify_resume
from ftlab.checkpoints.runs import Run
from ftlab.exercises.behaviour import as_names
from ftlab.exercises.core import Mistake, Wrong, exercise


def _training() -> Run:
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1))
    optimizer = Adam(model.parameters(), lr=0.1)
    scheduler = LinearLR(optimizer, 0.1, total_iters=6)

    def step(number):
        images = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        scheduler.step()

    return Run(step, model, optimizer, scheduler)


def check_resume(answer):
    """Eight steps straight, and four, a file, your function and four more: every tensor after each step."""
    epochs = []

    def make_run():
        run = _training()

        def save(path):
            parts = {name: part.state_dict() for name, part in run.parts().items()}
            torch.save({**parts, "random": torch.get_rng_state(), "epoch": 4}, path)

        run.save, run.load = (
            save,
            lambda path: epochs.append(answer(str(path), run.model, run.optimizer, run.scheduler)),
        )
        return run

    result = verify_resume(make_run, stop_at=4, steps=8, fresh=False)
    if not result.exact:
        text, ask = _parted(result)
        raise Wrong(f"It parts from the training that never stopped {text}", ask=ask)
    if epochs != [5]:
        text = f"The file was saved after epoch 4, and you would go on with epoch {epochs[0]!r}."
        raise Wrong(text, ask="Which epoch is the next one?")


def _parted(result) -> tuple[str, str]:
    moment = "as soon as it is loaded" if result.step == 3 else f"after {result.step - 3} more steps"
    first = result.names[0]
    asks = {
        "model": "Is everything of the model loaded, and does the dropout draw the same numbers?",
        "optimizer": "Are Adam's moments and the rate those of the file, also after your last line?",
        "scheduler": "Who knows how far the schedule has come?",
    }
    return f"{moment}, in `{first}`.", asks[first.partition(" ")[0]]


def _resume_model(path, model, optimizer, scheduler):
    saved = torch.load(path)
    model.load_state_dict(saved["model"])
    return saved["epoch"] + 1


def _resume_no_scheduler(path, model, optimizer, scheduler):
    saved = torch.load(path)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["random"])
    return saved["epoch"] + 1


def _resume_no_random(path, model, optimizer, scheduler):
    saved = torch.load(path)
    for name, part in (("model", model), ("optimizer", optimizer), ("scheduler", scheduler)):
        part.load_state_dict(saved[name])
    return saved["epoch"] + 1


def _resume_same_epoch(path, model, optimizer, scheduler):
    return _resume_right(path, model, optimizer, scheduler) - 1


def _resume_new_scheduler(path, model, optimizer, scheduler):
    saved = torch.load(path)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    torch.set_rng_state(saved["random"])
    LinearLR(optimizer, 0.1, total_iters=6).load_state_dict(saved["scheduler"])
    return saved["epoch"] + 1


def _resume_too_early(path, model, optimizer, scheduler):
    saved = torch.load(path)
    torch.set_rng_state(saved["random"])
    for name, part in (("model", model), ("optimizer", optimizer), ("scheduler", scheduler)):
        part.load_state_dict(saved[name])
    torch.rand(1)  # a look at a random batch
    return saved["epoch"] + 1


def _resume_right(path, model, optimizer, scheduler):
    saved = torch.load(path, map_location="cpu", weights_only=True)
    torch.set_rng_state(saved["random"])
    for name, part in (("scheduler", scheduler), ("optimizer", optimizer), ("model", model)):
        part.load_state_dict(saved[name])
    return saved["epoch"] + 1


@exercise(
    check=check_resume,
    broken=_resume_model,
    hints=[
        "Print the keys of the file: there are five.",
        "The optimizer has a state of its own, the scheduler too; both have `load_state_dict`.",
        "`torch.set_rng_state` puts the random generator back to where it was.",
    ],
    also_right=[_resume_right],
    mistakes=[
        Mistake(_resume_no_scheduler, says="in `scheduler"),
        Mistake(_resume_no_random, says="in `model"),
        Mistake(_resume_same_epoch, says="you would go on with epoch 4"),
        Mistake(_resume_new_scheduler, says="in `optimizer group 0 lr`"),
        Mistake(_resume_too_early, says="in `model"),
    ],
    remember="Build everything, load everything; the random state comes last, right before the first step.",
)
def resume(
    path: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> int:
    """Repair: put the training back to where it was saved, and return the number of the next epoch.

    The file has "model", "optimizer", "scheduler" (their `state_dict()`), "random" (`torch.get_rng_state()`), and
    "epoch", the last one that was finished. `model`, `optimizer` and `scheduler` are built as they were then; the
    model has dropout. Do not make another scheduler.
    """
    saved = torch.load(path)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    torch.set_rng_state(saved["random"])
    return saved["epoch"] + 1


def check_carry_over(answer):
    """Adam's moments of each parameter by its name, the rate, and that the old state is as it was."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    old = Adam([pair for pair in model.named_parameters() if not pair[0].startswith("0.")], lr=0.1)
    model(torch.randn(5, 2)).square().mean().backward()
    old.step()
    state = old.state_dict()
    before = str(state)
    names = dict(model.named_parameters())
    wanted = {name: old.state[p]["exp_avg"].clone() for name, p in names.items() if p in old.state}
    new = Adam([(name, names[name]) for name in reversed(names)], lr=0.001)
    answer(new, state)
    for name, parameter in names.items():
        _compare_moment(name, new.state.get(parameter, {}).get("exp_avg"), wanted.get(name))
    if new.param_groups[0]["lr"] != 0.001:
        text = f"The new optimizer was built with rate 0.001, and now it has {new.param_groups[0]['lr']}."
        raise Wrong(text, ask="What else is in the state of an optimizer but moments?")
    if [p for group in new.param_groups for p in group["params"]] != list(reversed(names.values())):
        raise Wrong("The optimizer has other parameters than before.", ask="Who owns `param_groups`?")
    for parameter in names.values():
        parameter.grad = torch.ones_like(parameter)
    new.step()
    if str(state) != before:
        text = "One step of the new optimizer has changed the state that was handed over."
        raise Wrong(text, ask="Do both now have the very same tensors?")


def _compare_moment(name: str, found: Tensor | None, wanted: Tensor | None) -> None:
    if found is None and wanted is not None:
        raise Wrong(f"`{name}` had a moment in the old state, and has none now.", ask="Where is it kept?")
    if found is not None and wanted is None and found.any():
        raise Wrong(f"`{name}` is new and has the moment of another parameter.", ask="By what did you match?")
    if found is not None and wanted is not None and not torch.equal(found, wanted):
        text = f"`{name}` has got the moment of another parameter."
        raise Wrong(text, ask="In which order are the parameters of the old optimizer, and of the new one?")


def _named(state: dict) -> dict[str, dict]:
    (group,) = state["param_groups"]
    return {
        name: state["state"][number] for name, number in zip(group["param_names"], group["params"], strict=True)
    }


def _carry_load(optimizer, state):
    optimizer.load_state_dict(state)


def _carry_by_order(optimizer, state):
    for parameter, moments in zip(optimizer.param_groups[0]["params"], state["state"].values(), strict=False):
        optimizer.state[parameter] = copy.deepcopy(moments)


def _carry_by_shape(optimizer, state):
    moments = list(state["state"].values())
    for parameter in optimizer.param_groups[0]["params"]:
        for number, one in enumerate(moments):
            if one["exp_avg"].shape == parameter.shape:
                optimizer.state[parameter] = copy.deepcopy(moments.pop(number))
                break


def _carry_shared(optimizer, state):
    named, group = _named(state), optimizer.param_groups[0]
    for name, parameter in zip(group["param_names"], group["params"], strict=True):
        if name in named:
            optimizer.state[parameter] = dict(named[name])


def _carry_with_rate(optimizer, state):
    _carry_right(optimizer, state)
    optimizer.param_groups[0]["lr"] = state["param_groups"][0]["lr"]


def _carry_under_names(optimizer, state):
    for name, moments in _named(state).items():
        optimizer.state[name] = copy.deepcopy(moments)


def _carry_right(optimizer, state):
    named, group = _named(state), optimizer.param_groups[0]
    for name, parameter in zip(group["param_names"], group["params"], strict=True):
        if name in named:
            optimizer.state[parameter] = copy.deepcopy(named[name])


def _carry_renumbered(optimizer, state):
    fresh, named = optimizer.state_dict(), copy.deepcopy(_named(state))
    names = fresh["param_groups"][0]["param_names"]
    fresh["state"] = {number: named[name] for number, name in enumerate(names) if name in named}
    optimizer.load_state_dict(fresh)


@exercise(
    check=check_carry_over,
    hints=[
        "Print `state`: the moments stand under numbers, the names under `param_names`, in the same order.",
        "First make a dictionary of the old moments by name.",
        "The new ones go to `optimizer.state[parameter]`, as copies; the rates stay as they are.",
    ],
    also_right=[_carry_renumbered],
    mistakes=[
        Mistake(_carry_load, says="doesn't match the size of optimizer's group"),
        Mistake(_carry_by_order, says="the moment of another parameter"),
        Mistake(_carry_by_shape, says="the moment of another parameter"),
        Mistake(_carry_shared, says="has changed the state that was handed over"),
        Mistake(_carry_with_rate, says="and now it has 0.1"),
        Mistake(_carry_under_names, says="has none now"),
    ],
    remember="An optimizer's state knows positions. Where the parameters changed, go by name: `remap_optimizer`.",
)
def carry_over(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Give each parameter of the new `optimizer` the moments that it had in the old `state`, by its name.

    `state` is the `state_dict()` of an Adam that trained other parameters in another order. Both were built with
    `model.named_parameters()` and one group, so both have `param_groups[0]["param_names"]`. A parameter that
    is new begins without moments. The rate of the new optimizer stays.
    """
    group = state["param_groups"][0]
    old = {
        name: state["state"][number] for name, number in zip(group["param_names"], group["params"], strict=True)
    }
    group = optimizer.param_groups[0]
    for name, parameter in zip(group["param_names"], group["params"], strict=True):
        if name in old:
            optimizer.state[parameter] = {key: value.clone() for key, value in old[name].items()}


PARTS = ("parameters", "buffers", "optimizer", "scheduler", "random torch")


def _run() -> Run:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)

    def step(number):
        images = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        scheduler.step()

    return Run(step, model, optimizer, scheduler)


def check_needed(answer):
    """Your set, against the training resumed without each part: four steps, a restart, and four more."""
    results = ablate(_run, stop_at=4, steps=8, fresh=False).results
    needed = {part for part in PARTS if not results[part].exact}
    given = as_names(answer(), PARTS)
    extra, missing = sorted(given - needed), sorted(needed - given)
    if missing:
        gap = results[missing[0]].difference
        text = f"Resumed without `{missing[0]}` the model at the end is another: it differs by up to {gap:.2g}."
        raise Wrong(text, ask="What does it remember that starts anew without it?")
    if extra:
        text = f"Resumed without `{extra[0]}` every bit at the end is the same."
        raise Wrong(text, ask="Which line of this training draws a random number?")


@exercise(
    check=check_needed,
    hints=[
        "Go through the training line by line: what does the next step read that this one has written?",
        "The rate stands in the optimizer. But when to lower it, who counts that?",
        "Who draws a random number after the model was made? `generator=` is a generator of its own.",
    ],
    also_right=[lambda: ["buffers", "optimizer", "parameters", "scheduler"]],
    mistakes=[
        Mistake(lambda: {"parameters"}, says="Resumed without `buffers`"),
        Mistake(lambda: {"parameters", "buffers"}, says="Resumed without `optimizer`"),
        Mistake(lambda: {"parameters", "buffers", "optimizer"}, says="Resumed without `scheduler`"),
        Mistake(lambda: set(PARTS), says="Resumed without `random torch` every bit at the end is the same"),
    ],
    remember="Save what the next step reads: parameters, buffers, optimizer, scheduler, and random states.",
)
def needed() -> set:
    """Choose what has to be saved, so that this training goes on after a restart with the very same numbers.

    Out of "parameters", "buffers", "optimizer", "scheduler" and "random torch", as a set:

        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        for number in range(8):
            images = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
            scheduler.step()

    It is stopped after four steps. All that you save is loaded, the rest is made anew. What matters is the model
    at the end, with its parameters and buffers.
    """
    return {"parameters", "buffers", "optimizer", "scheduler"}
