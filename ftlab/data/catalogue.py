"""Which data sets there are."""

from ftlab.data.downloads import SOURCES, is_here
from ftlab.table import Table

_ROWS = [
    ("emoji, noto", 504, 8),
    ("emoji, twemoji", 504, 8),
    ("digits", 1797, 10),
    ("hymenoptera", 397, 2),
    ("flowers102", 8189, 102),
    ("oxford_iiit_pet", 7349, 37),
]


def available() -> Table:
    """Return a table of the data sets: their size, and whether they are on this machine.

    Example:
        >>> available().to_dict()[0]
        {'data set': 'emoji, noto', 'images': 504, 'classes': 8, 'here': 'yes', 'to download': ''}
    """
    rows = []
    for name, images, classes in _ROWS:
        here = name not in SOURCES or is_here(name)
        rows.append(
            [name, images, classes, "yes" if here else "no", "" if here else f"{SOURCES[name].megabytes} MB"]
        )
    return Table(["data set", "images", "classes", "here", "to download"], rows)
