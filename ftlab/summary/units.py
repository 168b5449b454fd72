"""Numbers as one says them."""


def count(number: int) -> str:
    """Return a number of values or operations, short.

    Example:
        >>> count(999), count(11_689_512), count(4_089_184_256), count(63_000)
        ('999', '11.69 M', '4.09 G', '63.0 k')
    """
    for unit, size, digits in (("G", 1e9, 2), ("M", 1e6, 2), ("k", 1e4, 1)):
        if number >= size:
            return f"{number / (1e3 if unit == 'k' else size):,.{digits}f} {unit}"
    return f"{number:,}"


def memory(size: int) -> str:
    """Return a size in bytes, short.

    Example:
        >>> memory(512), memory(3 * 2**10), memory(101 * 2**20)
        ('512 B', '3.0 KiB', '101.0 MiB')
    """
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 2**power:
            return f"{size / 2**power:,.1f} {unit}"
    return f"{size:,} B"
