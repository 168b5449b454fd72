"""The capstone: a folder as people have them, what can be measured of it, and a judge of what was made."""

from ftlab.capstone.copies import Copy, find_copies
from ftlab.capstone.deciding import choices, defend, options
from ftlab.capstone.facts import Facts, measure
from ftlab.capstone.holding import Held, hold_back
from ftlab.capstone.judging import BAR, judge
from ftlab.capstone.pictures import CLASSES, hidden, make_folder
from ftlab.capstone.verdict import Finding, Verdict

__all__ = [
    "BAR",
    "CLASSES",
    "Copy",
    "Facts",
    "Finding",
    "Held",
    "Verdict",
    "choices",
    "defend",
    "find_copies",
    "hidden",
    "hold_back",
    "judge",
    "make_folder",
    "measure",
    "options",
]
