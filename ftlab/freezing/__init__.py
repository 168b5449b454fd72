"""Freezing: choose parameters, freeze them, prove what moved and why, plan the thaw, count what it saves."""

from .auditing import audit
from .causes import Cause, Hindrance
from .flags import FreezeReceipt, freeze, unfreeze
from .report import FreezeAudit, TensorAudit
from .selection import select

__all__ = [
    "Cause",
    "FreezeAudit",
    "FreezeReceipt",
    "Hindrance",
    "TensorAudit",
    "audit",
    "freeze",
    "select",
    "unfreeze",
]
