"""The second half of an error about a name: what it was probably meant to be."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(given: str, known: Iterable[str], count: int = 3) -> str:
    """Return a phrase with the known names nearest to `given`, or the first ones if none is near.

    Example:
        >>> nearest("resnet81", ["resnet18", "vgg11"])
        "the nearest is 'resnet18'"
        >>> nearest("zzz", ["resnet18", "vgg11"])
        "the first ones are 'resnet18', 'vgg11'"
    """
    known = list(known)
    if not known:
        return "there is none"
    close = get_close_matches(str(given), known, n=count)
    verb = "is" if len(close) == 1 else "are"
    if close:
        return f"the nearest {verb} {', '.join(map(repr, close))}"
    return f"the first ones are {', '.join(map(repr, known[:count]))}"
