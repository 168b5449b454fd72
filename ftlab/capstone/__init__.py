"""The capstone: a folder of images as people have them, and a judge of what was made of it."""

from ftlab.capstone.judging import BAR, Verdict, judge
from ftlab.capstone.pictures import CLASSES, hidden, make_folder

__all__ = ["BAR", "CLASSES", "Verdict", "hidden", "judge", "make_folder"]
