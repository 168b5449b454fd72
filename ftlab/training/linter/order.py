"""The rules of the order: a loop is a sequence of events, and a slip is a pattern in it."""

from collections.abc import Iterator, Sequence

from .events import Event
from .slips import Slip, slip

Events = Sequence[Event]


def order_slips(events: Events, evidence: str = "read") -> Iterator[Slip]:
    """Yield the slips in a sequence of events that goes at least twice through the loop.

    Example:
        >>> once = [Event("forward", 1), Event("backward", 2), Event("step", 3)]
        >>> {found.kind for found in order_slips(once * 2)}
        {'no zero_grad'}
    """
    for rule in (_missing, _clearing, _clipping, _scaling, _scheduling, _modes, _recording):
        yield from rule(events, evidence)


def _steps(events: Events) -> Iterator[tuple[Event, Events, bool]]:
    """Yield each step of an optimizer, what happened since its last one, and whether there was one."""
    last: dict = {}
    for place, event in enumerate(events):
        if event.kind == "step":
            yield event, events[last.get(event.of, 0) : place], event.of in last
            last[event.of] = place + 1
        elif event.kind == "optimizer":
            last.pop(event.name, None)  # a new one, that has not stepped yet


def _all(kind: str, events: Events) -> list[Event]:
    return [event for event in events if event.kind == kind]


def _place(kind: str, events: Events, last: bool = False) -> int:
    """Return where the first, or last, event of a kind is; -1 if there is none."""
    places = [place for place, event in enumerate(events) if event.kind == kind]
    return (places[-1] if last else places[0]) if places else -1


def _named(event: Event) -> dict[str, str]:
    return {"optimizer": event.name} if event.name else {}


def _missing(events: Events, evidence: str) -> Iterator[Slip]:
    """A loop without backward, without step, or with the step first."""
    steps, backwards, forwards = (_all(kind, events) for kind in ("step", "backward", "forward"))
    if _all("opaque", events):
        return
    if steps and not backwards and forwards:
        yield slip("no backward", steps[0].line, evidence, **_named(steps[0]))
    elif steps and backwards and _place("step", events) < _place("backward", events):
        yield slip("step before backward", steps[0].line, evidence, **_named(steps[0]))
    elif backwards and not steps and _all("zero_grad", events) and forwards:
        cleared = next((e for e in events if e.kind == "zero_grad" and not e.model), None)
        yield slip("no step", backwards[-1].line, evidence, **(_named(cleared) if cleared else {}))


def _clearing(events: Events, evidence: str) -> Iterator[Slip]:
    """Gradients that are not cleared, or cleared before they are used."""
    if _all("opaque", events):
        return
    owners = _owners(events)
    yield from _twice(events, evidence)
    alone = len({event.of for event in _all("step", events)}) == 1
    in_order = 0 <= _place("backward", events) < _place("step", events)
    for step, before, again in _steps(events):
        backward = _place("backward", before, last=True)
        clears = [place for place, event in enumerate(before) if _clears(event, step, owners)]
        sure = [place for place in clears if alone or not before[place].model or step.of in owners]
        if backward >= 0 and in_order and sure and sure[-1] > backward:
            yield slip("zero_grad between backward and step", before[sure[-1]].line, evidence, **_named(step))
        if backward >= 0 and again and not clears and _all("forward", before):
            own = before[_place("step", before, last=True) + 1 :]  # after the steps of other optimizers
            line = own[max(_place("backward", own), 0)].line
            yield slip("no zero_grad", line, evidence, **_named(step))


def _twice(events: Events, evidence: str) -> Iterator[Slip]:
    """Steps in two lines with no gradients in between, and schedules in two lines with no step in between."""
    last: dict = {}
    for place, event in enumerate(events):
        if event.kind in ("step", "schedule") and event.of != "by hand":
            before, start = last.get(event.of, (event, 0))
            needs = "backward" if event.kind == "step" else "step"
            if before.line != event.line and not _all(needs, events[start:place]) and _all("step", events):
                kind, role = _TWICE[event.kind]
                yield slip(kind, event.line, evidence, **({role: event.name} if event.name else {}))
            last[event.of] = event, place
        elif event.kind == "optimizer":
            last.clear()


_TWICE = {"step": ("step twice", "optimizer"), "schedule": ("scheduler twice", "scheduler")}


def _clears(event: Event, step: Event, owners: dict) -> bool:
    """Say whether a zero_grad may clear what the step uses; another optimizer's model is not it."""
    if event.kind != "zero_grad" or not event.model:
        return event.kind == "zero_grad" and event.of in (step.of, None)
    others = {model for optimizer, model in owners.items() if optimizer != step.of}
    return event.of not in others or event.of == owners.get(step.of)


def _owners(events: Events) -> dict:
    """Return the model that each optimizer was made for, where that was read."""
    return {event.name: event.of for event in events if event.kind == "optimizer" and event.of}


def _clipping(events: Events, evidence: str) -> Iterator[Slip]:
    """Clipping beside the place between backward and step."""
    for place, event in enumerate(events):
        if event.kind != "clip":
            continue
        earlier = next((e for e in events[:place][::-1] if e.kind in ("backward", "step", "zero_grad")), None)
        later = next((e for e in events[place:] if e.kind in ("backward", "step", "opaque")), None)
        if earlier and earlier.kind == "step":
            yield slip("clip after step", event.line, evidence, **_named(event))
        elif later and later.kind == "step" and _is_other(event, _owners(events).get(later.of)):
            yield slip("clip of other parameters", event.line, evidence, **_named(later))
        elif later and later.kind == "backward" and (not earlier or earlier.kind == "zero_grad"):
            yield slip("clip before backward", event.line, evidence, **_named(event))


def _is_other(clip: Event, model: str | None) -> bool:
    """Say whether the clipping is of another model than the one that is stepped; a part of it is not."""
    clipped = str(clip.of).removesuffix(".parameters()")
    if not model or clipped == str(clip.of):
        return False
    return not f"{model}.".startswith(f"{clipped}.") and not f"{clipped}.".startswith(f"{model}.")


def _scaling(events: Events, evidence: str) -> Iterator[Slip]:
    """The gradient scaler: scale, unscale, step, update, in this order."""
    for step, before, again in _steps(events):
        backwards = [event for event in before if event.kind == "backward"]
        scaled = _place("backward", before, last=True) if backwards and backwards[-1].scaled else -1
        unscale, clip = _place("unscale", before, last=True), _place("clip", before, last=True)
        if scaled >= 0 and clip > scaled and not scaled < unscale < clip:
            yield slip("clip before unscale", before[clip].line, evidence, **_named(step))
        if step.scaled and backwards and not backwards[-1].scaled:
            yield slip("loss not scaled", backwards[-1].line, evidence, **_named(step))
        if scaled >= 0 and not step.scaled:
            kind = "step past the scaler" if unscale > scaled else "scaled gradients stepped"
            yield slip(kind, step.line, evidence, **_named(step))
        if step.scaled and again and not _all("update", before) and not _all("opaque", before):
            yield slip("no update", step.line, evidence, **_named(step))
    for event in events:
        if event.kind == "backward" and event.autocast:
            yield slip("backward in autocast", event.line, evidence)


def _scheduling(events: Events, evidence: str) -> Iterator[Slip]:
    """A schedule that is stepped before the optimizer."""
    first = _place("schedule", events)
    before = events[: max(first, 0)]
    if first >= 0 and not _all("step", before) and not _all("opaque", before) and _all("step", events[first:]):
        names = {"scheduler": events[first].name} if events[first].name else {}
        yield slip("scheduler before optimizer", events[first].line, evidence, **names)


def _modes(events: Events, evidence: str) -> Iterator[Slip]:
    """Training in eval mode: there was an eval() and no train() before the next training batch."""
    left: dict = {}
    for place, event in enumerate(events):
        if event.kind == "eval":
            left[event.of] = event
        elif event.kind in ("train", "made"):
            left.pop(event.of, None)
        elif event.kind == "judged" and not _all("eval", events) and _only_judged(events, place):
            forward = next((e for e in events[:place][::-1] if e.kind == "forward"), event)
            yield slip("validation in train mode", forward.line, evidence, model=forward.name or "model")
        elif event.kind == "forward" and event.grad and event.of in left and _trains(events, place):
            yield slip("eval left on", left[event.of].line, evidence, model=event.name or "model")


def _trains(events: Events, place: int) -> bool:
    """Say whether a forward is trained on: a backward comes before the next forward, and steps there are."""
    later = events[place + 1 :] if _all("step", events) or _all("opaque", events) else []
    following = next((e.kind for e in later if e.kind in ("forward", "backward", "eval", "train", "end")), "")
    return following == "backward"


def _only_judged(events: Events, place: int) -> bool:
    """Say whether outputs are judged in a loop that trains, and are not trained on themselves."""
    return bool(_all("step", events)) and not _trains(events, place)


def _recording(events: Events, evidence: str) -> Iterator[Slip]:
    """Validation that builds graphs: a forward in eval mode, recorded, with no backward after it."""
    in_eval: set = set()
    for place, event in enumerate(events):
        if event.kind == "eval":
            in_eval.add(event.of)
        elif event.kind in ("train", "made"):
            in_eval.discard(event.of)
        elif event.kind == "forward" and event.grad and event.of in in_eval:
            often = sum(e.kind == "forward" and e.line == event.line for e in events) > 1
            rest = [e for e in events[place + 1 :] if e.kind in ("backward", "forward", "step", "opaque")]
            if often and (not rest or (rest[0].kind == "forward" and rest[0].line == event.line)):
                yield slip("validation without no_grad", event.line, evidence)
