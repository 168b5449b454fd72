"""Names of a package that are loaded when they are first used, so that importing the package costs nothing."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a package.

    Args:
        package: Its `__name__`.
        homes: By name, the module of the package that has it; "" if the name is that of a module itself.

    Example:
        >>> __getattr__, __dir__ = lazy("ftlab", {"plots": "", "Table": "table"})
        >>> __getattr__("Table")
        <class 'ftlab.table.Table'>
        >>> __dir__()
        ['Table', 'plots']
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 - these two names are Python's
        if name not in homes:
            raise AttributeError(f"{package} has no {name!r}; it has {', '.join(sorted(homes))}")
        if not homes[name]:
            return import_module(f"{package}.{name}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    def __dir__() -> list[str]:  # noqa: N807
        return sorted(homes)

    return __getattr__, __dir__
