"""What a container stands on: values that storage hands out and plan() turns into steps."""

from __future__ import annotations

from cloche.value import Value


class Overlay(Value):
    """An overlay: chdir to `directory` first; lower paths are relative to it, topmost first; upper and work are
    absolute."""

    directory: str
    lower: tuple[str, ...]
    upper: str
    work: str
    options: tuple[str, ...] = ()


class Folder(Value):
    """A plain folder as the root, bound as it is. mapped: in a user namespace its owners are shifted, as an image's."""

    path: str
    readonly: bool = False
    mapped: bool = True
