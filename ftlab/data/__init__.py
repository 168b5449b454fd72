"""Images to learn on: some that are always here, the learner's own, and well known sets to download.

Every function returns a data set of (image, class number) with `classes`, `class_to_idx` and `targets`, as
torchvision's `ImageFolder` has them, and its repr is the table of its classes. Images are RGB, whatever the file
is. Nothing depends on the folder that Python was started in.
"""

from ftlab.data.catalogue import available
from ftlab.data.downloads import flowers102, hymenoptera, oxford_iiit_pet
from ftlab.data.embedded import digits, emoji
from ftlab.data.own import folder

__all__ = ["available", "digits", "emoji", "flowers102", "folder", "hymenoptera", "oxford_iiit_pet"]
