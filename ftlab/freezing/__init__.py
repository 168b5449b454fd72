"""Freezing: choose parameters, freeze them, prove what moved and why, plan the thaw, count what it saves."""

from .auditing import audit
from .causes import Cause, Hindrance
from .costs import FreezeCost, StepCost, cost
from .flags import FreezeReceipt, freeze, unfreeze
from .plan import Phases, phases
from .report import FreezeAudit, TensorAudit
from .selection import select

__all__ = [
    "Cause",
    "FreezeAudit",
    "FreezeCost",
    "FreezeReceipt",
    "Hindrance",
    "Phases",
    "StepCost",
    "TensorAudit",
    "audit",
    "cost",
    "freeze",
    "phases",
    "select",
    "unfreeze",
]
