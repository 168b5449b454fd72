"""The reasons why a tensor moved, or did not, and what helps."""

from enum import StrEnum


class Cause(StrEnum):
    """Why a tensor moved; `{before}` becomes "before the freeze" for a frozen one."""

    GRADIENT = "gradient"
    OLD_GRADIENT = "a gradient left from {before}"
    MOMENTUM = "momentum left from {before}"
    MOMENTS = "Adam's moments left from {before}"
    WEIGHT_DECAY = "weight decay"
    OPTIMIZER = "the optimizer's own state"
    STATISTICS = "batch norm statistics"
    COUNTER = "a counter"
    FORWARD = "written in its module's forward"
    WRITTEN = "written directly"
    TIE = "a tie"
    REPLACED = "replaced by another object"
    ADDED = "added during the step"
    REMOVED = "removed during the step"


class Hindrance(StrEnum):
    """Why a trainable tensor did not move."""

    NO_GROUP = "in no optimizer group"
    NO_STEP = "its optimizer did not step"
    NOT_FINITE = "its gradient is not finite"
    UNUSED = "no gradient: never used in the forward"
    DETACHED = "no gradient: cut off by detach"
    NO_GRAD = "no gradient: cut off by no_grad"
    NOT_DIFFERENTIABLE = "no gradient: cut off by an operation that has none"
    UNREACHED = "no gradient: used, but backward did not reach it"
    CLEARED = "its gradient was cleared before the optimizer stepped"
    ZERO_GRADIENT = "its gradient is exactly zero"
    ZERO_LR = "learning rate 0"
    TOO_SMALL = "the update is too small for its precision"
    PUT_BACK = "it moved and was put back"


ADVICE = {
    Cause.OLD_GRADIENT: "set grad to None when you freeze; ftlab.freezing.freeze does it",
    Cause.MOMENTUM: "set grad to None when you freeze: zeros are not enough; ftlab.freezing.freeze does it",
    Cause.MOMENTS: "set grad to None when you freeze: zeros are not enough; ftlab.freezing.freeze does it",
    Cause.WEIGHT_DECAY: "set grad to None when you freeze: zeros are not enough; ftlab.freezing.freeze does it",
    Cause.STATISTICS: "hold the norms in eval mode: ftlab.freezing.freeze(model, ..., batch_norm='eval')",
    Cause.WRITTEN: "something in the step writes into the tensor itself; look for copy_, load_state_dict, .data",
    Cause.TIE: "freeze both ends of a tie, or untie them with a clone",
    Cause.REPLACED: "build the optimizer after the last change to the model",
    Hindrance.NO_GROUP: "give it to the optimizer: optimizer.add_param_group({'params': [...]})",
    Hindrance.NO_STEP: "call optimizer.step() after backward()",
    Hindrance.NOT_FINITE: "look for an overflow; GradScaler leaves such a step out",
    Hindrance.UNUSED: "call the module in forward, or freeze it",
    Hindrance.DETACHED: "take the detach() out of the way between the tensor and the loss",
    Hindrance.NO_GRAD: "freeze with requires_grad_(False) instead of no_grad: that lets gradients pass through",
    Hindrance.UNREACHED: "make the loss depend on it, and call backward()",
    Hindrance.CLEARED: "the order is zero_grad(), backward(), step()",
    Hindrance.ZERO_LR: "set the lr of its group",
    Hindrance.TOO_SMALL: "raise the lr or use float32; a bias right before a batch norm has no effect at all",
}
