"""Which images are meant by filters, as `docker images --filter` has them. Of one name that is given again, `reference`
is content with one of them, all others want each."""

from __future__ import annotations

from cloche.engine.units import moment
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cloche.engine.containers import Engine
    from cloche.image.store import Image

NAMES = ("before", "dangling", "label", "reference", "since", "until")
_YES, _NO = ("true", "1"), ("false", "0")


def kept(engine: Engine, images: Iterable[Image], filters: Sequence[tuple[str, str]]) -> list[Image]:
    """Those that all filters let through; `reference` is for their names, see `is_named`.

    Raises Invalid (no such filter, a value that is none), NotFound (`before` and `since` name an image).
    """
    tests = [_test(engine, name, value) for name, value in filters if name != "reference"]
    return [image for image in images if all(test(image) for test in tests)]


def is_named(patterns: Iterable[str], repository: str, tag: str) -> bool:
    """Whether a name fits one of the patterns: with a tag or without, `*` stands for anything but a slash."""
    return any(_fits(pattern, repository, tag) for pattern in patterns)


def _fits(pattern: str, repository: str, tag: str) -> bool:
    from fnmatch import fnmatchcase

    for name in (repository, f"{repository}:{tag}"):
        parts, wanted = name.split("/"), pattern.split("/")
        if len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted)):
            return True
    return False


def _test(engine: Engine, name: str, value: str) -> Callable[[Image], bool]:
    if name == "dangling":
        if value not in (*_YES, *_NO):
            raise Invalid(f"filter {name}={value}", "invalid filter", "true or false")
        return lambda image: any("@" not in key for key in image.references) != (value in _YES)
    if name == "label":
        key, given, text = value.partition("=")
        return lambda image: _labelled(image, key, text if given else None)
    if name in ("before", "since"):
        other = engine.image(value).created
        return lambda image: image.created < other if name == "before" else image.created > other
    if name == "until":
        from time import time

        until = moment(value, time())
        return lambda image: image.created < until
    raise Invalid(f"filter {name}={value}", "invalid filter", f"one of {', '.join(NAMES)}")


def _labelled(image: Image, key: str, text: str | None) -> bool:
    labels = dict(image.config.config.labels)
    return key in labels and text in (None, labels[key])
