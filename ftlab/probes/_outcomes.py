"""Whether a call raises, or warns."""

import warnings
from collections.abc import Callable


def raises(kind: type[Exception], call: Callable) -> bool:
    """Return whether the call raises an error of this kind."""
    try:
        call()
    except kind:
        return True
    return False


def warns(call: Callable) -> bool:
    """Return whether the call warns of anything."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call()
    return bool(said)
