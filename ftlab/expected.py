"""What a function was given, against what it needs: an error that says both, and the call as it is meant."""

from typing import Any


def expect(thing: Any, kind: type | tuple[type, ...], what: str, call: str) -> None:
    """Raise an error if `thing` is of another kind.

    Args:
        thing: What was given.
        kind: What it has to be, as for `isinstance`.
        what: What it is for: "the model", "the optimizer".
        call: The call as it is meant, such as "xray(model, optimizer)".

    Raises:
        TypeError: It is of another kind.

    Example:
        >>> expect(3, str, "the name", "greet(name)")
        Traceback (most recent call last):
        TypeError: the name has to be of type str, and is of type int; the call is greet(name)
    """
    if not isinstance(thing, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(one.__name__ for one in kinds if one is not type(None))
        raise TypeError(
            f"{what} has to be of type {wanted}, and is of type {type(thing).__name__}; the call is {call}"
        )
