"""How many there are, in words."""


def plural(count: int, thing: str) -> str:
    """Return the number with its noun, which takes an "s" unless there is one.

    Example:
        >>> plural(1, "step"), plural(2, "step"), plural(0, "step")
        ('1 step', '2 steps', '0 steps')
    """
    return f"{count} {thing}{'s' * (count != 1)}"
