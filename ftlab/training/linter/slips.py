"""The slips that are known: what each one is called, why it is one, and the line of code that repairs it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Slip:
    """One slip of a training loop.

    Attributes:
        kind: What it is called, one of `KNOWN`.
        line: Where, counted from the first line of the source; None if no line can be named.
        why: What it does to the training.
        repair: A line of code that puts it right.
        evidence: "read", "seen: ..." with what the run showed, or both.
    """

    kind: str
    line: int | None
    why: str
    repair: str
    evidence: str

    @property
    def seen(self) -> bool:
        """Whether a real run showed it."""
        return "seen" in self.evidence


def slip(kind: str, line: int | None, evidence: str = "read", **names: Any) -> Slip:
    """Return a slip of a known kind; `names` are the learner's own, for the repair.

    Example:
        >>> slip("no zero_grad", 4, optimizer="opt").repair
        'opt.zero_grad()  # before backward()'
    """
    why, repair = KNOWN[kind]
    known = {"optimizer": "optimizer", "loss": "loss", "model": "model", "scheduler": "scheduler"}
    known |= {
        "scaler": "scaler",
        "steps": "steps",
        "name": "params",
        "given": "",
        "total": "total += loss.item()",
    }
    return Slip(kind, line, why.format(**known | names), repair.format(**known | names), evidence)


# kind: (why, repair)
KNOWN: dict[str, tuple[str, str]] = {
    # the order of the lines
    "no zero_grad": (
        "backward() adds to the gradients that are there: each step also takes those of the batches before",
        "{optimizer}.zero_grad()  # before backward()",
    ),
    "zero_grad between backward and step": (
        "the gradients are thrown away before the step can use them: nothing is learned",
        "{optimizer}.zero_grad()  # move it before backward(), or after step()",
    ),
    "no backward": (
        "nothing computes gradients, so the step has none to use",
        "{loss}.backward()  # before {optimizer}.step()",
    ),
    "step before backward": (
        "the step comes before the gradients that it needs: the last ones are never used",
        "{optimizer}.step()  # move it after backward()",
    ),
    "no step": (
        "gradients are computed and never used: no parameter moves",
        "{optimizer}.step()  # after backward()",
    ),
    "step twice": (
        "the second step uses the gradients of the first once more: the rate is doubled, behind your back",
        "{optimizer}.step()  # once for each backward()",
    ),
    "step never moves anything": (
        "the steps ran, and every parameter is as it was",
        "[g['lr'] for g in {optimizer}.param_groups]  # look at the rates, and at p.grad before the step",
    ),
    "not called": (
        "without parentheses the line only names the method: nothing happens",
        "{name}()",
    ),
    "retain_graph": (
        "the graph of every batch is kept for a second backward() that never comes; it needs memory, and "
        "hides a loss that is carried over from batch to batch",
        "{loss}.backward()",
    ),
    # clipping
    "clip before backward": (
        "it clips the gradients before this batch's are there: the step takes them unclipped",
        "clip_grad_norm_({model}.parameters(), max_norm=1.0)  # between backward() and step()",
    ),
    "clip after step": (
        "the step has already used the gradients unclipped",
        "clip_grad_norm_({model}.parameters(), max_norm=1.0)  # between backward() and step()",
    ),
    "clip before unscale": (
        "the gradients are still multiplied by the scale: clipped like that, the update vanishes",
        "{scaler}.unscale_({optimizer})  # before the clipping",
    ),
    "clip part by part": (
        "each part gets a norm of its own, so the direction of the step changes; clipping takes one over all",
        "clip_grad_norm_({model}.parameters(), max_norm=1.0)  # once, over all parameters",
    ),
    "clip of other parameters": (
        "the parameters that are clipped are not the ones that {optimizer} steps",
        "clip_grad_norm_([p for g in {optimizer}.param_groups for p in g['params']], max_norm=1.0)",
    ),
    "exhausted generator": (
        "`{name}` is a generator: the first use empties it, and from then on it has no parameters",
        "{name} = list({given})",
    ),
    # schedules
    "scheduler before optimizer": (
        "the first value of the schedule is skipped: step the optimizer first",
        "{scheduler}.step()  # after {optimizer}.step()",
    ),
    "scheduler twice": (
        "the schedule goes two values on at a time",
        "{scheduler}.step()  # once",
    ),
    "scheduler per batch": (
        "the schedule is made for epochs ({given}) and is stepped for each batch: it is over long before the end",
        "{scheduler}.step()  # once per epoch, outside the loop over the batches",
    ),
    "scheduler per epoch": (
        "the schedule is made for batches ({given}) and is stepped once per epoch: it hardly begins",
        "{scheduler}.step()  # for each batch, after {optimizer}.step()",
    ),
    "scheduler never stepped": (
        "the schedule is there and never used: the rate stays as it is",
        "{scheduler}.step()  # after the epoch",
    ),
    "plateau without a metric": (
        "ReduceLROnPlateau waits for a number to stop falling; it has to be given that number",
        "{scheduler}.step(val_loss)",
    ),
    # accumulation
    "accumulation not divided": (
        "the gradients of {steps} batches are added, not averaged: the step is that many times too long",
        "({loss} / {steps}).backward()",
    ),
    "last window lost": (
        "if the number of batches is no multiple of {steps}, the gradients of the last ones never reach a step, "
        "or spill into the next epoch",
        "if (i + 1) % {steps} == 0 or i + 1 == len(loader):",
    ),
    # loss and targets
    "softmax before cross_entropy": (
        "cross_entropy takes logits and does the softmax itself: done twice, the loss cannot get near 0",
        "{loss} = F.cross_entropy(logits, targets)  # the logits: without a softmax",
    ),
    "log_softmax before cross_entropy": (
        "cross_entropy does it itself; log_softmax twice is log_softmax, so this is harmless and not needed",
        "{loss} = F.cross_entropy(logits, targets)  # or nll_loss with log_softmax",
    ),
    "sigmoid before with_logits": (
        "binary_cross_entropy_with_logits does the sigmoid itself: done twice, the scores lie in 0.5 to 0.73",
        "{loss} = F.binary_cross_entropy_with_logits(logits, targets)  # the logits: without a sigmoid",
    ),
    "nll_loss of logits": (
        "nll_loss takes logarithms of probabilities; with logits the loss can fall without end",
        "{loss} = F.cross_entropy(logits, targets)",
    ),
    "one_hot without num_classes": (
        "one_hot counts the classes of this batch: where the last class is missing, the shape is another",
        "F.one_hot(targets, num_classes=num_classes)",
    ),
    "one_hot as integers": (
        "class probabilities must be floating point; one_hot gives integers",
        "F.one_hot(targets, num_classes).float()  # or give cross_entropy the class numbers",
    ),
    "squeeze without a dimension": (
        "squeeze() takes every dimension of size 1 away: of a batch of one, the batch too",
        "{name}.squeeze(1)  # name the dimension",
    ),
    "data changed in place": (
        "what the caller gave is another tensor afterwards: the next look at it finds other values",
        "{name} = {name}.clone()  # or the same without the underscore",
    ),
    # the graph
    "total keeps graphs": (
        "each loss holds the graph of its batch, without a backward pass all its activations too: memory grows",
        "{total}",
    ),
    "number instead of loss": (
        "it is a plain number or a copy without a graph: backward() has no way back to the parameters",
        "{loss}.backward()  # on the tensor itself; take .item() afterwards",
    ),
    "graph cut by detach": (
        "detach (and .data) ends the graph: no gradient gets back to the model",
        "{loss} = loss_fn({model}(inputs), targets)  # without detach",
    ),
    "no_grad around the forward": (
        "under no_grad nothing is recorded: backward() has no way back to the parameters",
        "outputs = {model}(inputs)  # outside of no_grad",
    ),
    # modes
    "eval left on": (
        "the model trains in eval mode: dropout is off and batch norm does not learn its statistics",
        "{model}.train()  # before the next training batch",
    ),
    "validation in train mode": (
        "dropout is on, batch norm takes the batch's statistics and goes on learning them from validation data",
        "{model}.eval()  # before the validation, and {model}.train() after it",
    ),
    "validation without no_grad": (
        "eval() does not stop the recording: a graph is built for every batch, and never used",
        "with torch.no_grad():  # around the validation",
    ),
    # the optimizer
    "optimizer of other parameters": (
        "the optimizer does not have the parameters that get the gradients: they never move",
        "{optimizer} = torch.optim.SGD({model}.parameters(), lr=...)",
    ),
    "optimizer never stepped": (
        "it is made and cleared, and another one is stepped: its parameters never move",
        "{optimizer}.step()  # after its own backward()",
    ),
    "optimizer before the head": (
        "the optimizer keeps the tensors that it was given: the new ones never move",
        "{optimizer} = torch.optim.SGD({model}.parameters(), lr=...)  # after the last change to the model",
    ),
    "unfrozen without an optimizer": (
        "the optimizer was made when they were frozen, and without them: they get gradients and never move",
        "{optimizer}.add_param_group({{'params': unfrozen, 'lr': ...}})  # or make a new one, after unfreezing",
    ),
    "optimizer before .to": (
        "moved parameters can be new tensors, which the optimizer does not have, and state that it has does not "
        "move along. Between CPU and CUDA the parameters stay the same objects; do not rely on it",
        "{model}.to(device)  # before the optimizer is built",
    ),
    # mixed precision
    "no update": (
        "without update() the scale never adapts, and the next step of the scaler raises",
        "{scaler}.update()  # after {scaler}.step({optimizer})",
    ),
    "loss not scaled": (
        "the scaler divides by its scale what was never multiplied by it: the step is far too small",
        "{scaler}.scale({loss}).backward()",
    ),
    "scaled gradients stepped": (
        "the gradients are still multiplied by the scale: the step is that many times too long",
        "{scaler}.step({optimizer})",
    ),
    "step past the scaler": (
        "the scaler leaves a step out whose gradients have overflowed; this one takes them, inf and nan too",
        "{scaler}.step({optimizer})",
    ),
    "backward in autocast": (
        "autocast is for the forward pass and the loss; backward() runs in the types that the forward chose",
        "{loss}.backward()  # outside of autocast",
    ),
    # the machine
    "CUDA_VISIBLE_DEVICES too late": (
        "CUDA reads the variable once, when it starts, which is in line {given}: afterwards it is ignored, "
        "without a word",
        "os.environ['CUDA_VISIBLE_DEVICES'] = '0'  # before importing torch",
    ),
    "CUDA_VISIBLE_DEVICES is no string": (
        "an environment variable is a string; a number raises TypeError",
        "os.environ['CUDA_VISIBLE_DEVICES'] = '0'",
    ),
    "empty_cache in the loop": (
        "it frees no tensor; it gives blocks back that the next batch has to ask for again",
        "del outputs, {loss}  # what frees memory is the last reference going",
    ),
    "best is a live view": (
        "state_dict() gives the tensors themselves: they go on training, and 'best' is the last",
        "{name} = copy.deepcopy({model}.state_dict())",
    ),
    # the run itself
    "syntax error": ("{given}", "# Python cannot read this line"),
    "raises": ("{given}", "# read the message from its last line"),
    "does not end": ("{given}", "for epoch in range(epochs):  # a loop that ends"),
}
