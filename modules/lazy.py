"""Names of a package that are imported when they are asked for."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package (PEP 562) that imports some of its names when they are asked for.

    Lightning and transformers take seconds to import, and who only encodes, decodes or speaks needs neither.

    Args:
        package: Name of the package.
        modules: Name -> module that defines it.

    Returns:
        The function; it raises AttributeError for other names, as Python does.
    """

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return find
