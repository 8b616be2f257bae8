"""Docker's rules for `rmi`: when a name is taken away, when the image, and when neither.

A name is taken away; with the last one goes the image, unless a container uses it. By its id an image goes with its
names, if they are all of one repository; else, and for stopped containers, only by force. An image that runs cannot
be forced. Source: github.com/moby/moby daemon/images/image_delete.go.
"""

from __future__ import annotations

from cloche.errors import Conflict
from cloche.image.store import Changing
from cloche.oci.reference import Reference, parse
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cloche.image.store import Image, ImageStore, Use


class Removal(Value):
    """What was done: short names that were taken away, ids that are gone."""

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


def remove(store: ImageStore, text: str, force: bool, in_use: Callable[[], Iterable[Use]]) -> Removal:
    """Take away the name or the image `text`. Raises NotFound, Conflict, Invalid."""
    with Changing(store.db):
        image = store.resolve(text)
        names = [parse(name) for name in image.references]
        uses = [use for use in in_use() if use.image == image.id]
        if image.id.removeprefix("sha256:").startswith(text.removeprefix("sha256:")):
            going = _by_id(image, names, uses, force)
            gone = True
        else:
            going = _by_name(image, parse(text), names, uses, force)
            # what is left without a name is deleted too, unless a container still uses it
            gone = len(going) == len(names) and not (any(u.running for u in uses) or (uses and not force))
        store.db.executemany("DELETE FROM tags WHERE reference = ?", [(name.key,) for name in going])
        if gone:
            store.db.execute("DELETE FROM images WHERE id = ?", (image.id,))
    return Removal(tuple(name.familiar() for name in going), (image.id,) if gone else ())


def _by_name(
    image: Image, wanted: Reference, names: Sequence[Reference], uses: Sequence[Use], force: bool
) -> list[Reference]:
    """The names that go. With the last tag of a repository go its digests, which only say where the tag came from."""
    if uses and not force and _is_single(names):
        raise Conflict(
            f"remove the name {wanted.familiar()}",
            f"the container {uses[0].container[:12]} uses its image {_short(image)}",
            "remove the container first, or force it",
        )
    going = [name for name in names if name.key == wanted.key]
    left = [name for name in names if name.key != wanted.key]
    if not wanted.digest and not any(name.name == wanted.name and not name.digest for name in left):
        going += [name for name in left if name.name == wanted.name]
    return going


def _by_id(image: Image, names: Sequence[Reference], uses: Sequence[Use], force: bool) -> list[Reference]:
    what = f"remove the image {_short(image)}"
    for use in uses:
        if use.running:
            cause = f"the running container {use.container[:12]} uses it"
            raise Conflict(what, cause, "stop and remove the container first; this cannot be forced")
    if names and not _is_single(names) and not force:
        raise Conflict(what, "it has names in several repositories", "remove each name, or force it")
    if uses and not force:
        cause = f"the stopped container {uses[0].container[:12]} uses it"
        raise Conflict(what, cause, "remove the container first, or force it")
    return list(names)


def _is_single(names: Sequence[Reference]) -> bool:
    """Whether they are one tag and digests of the same repository."""
    tags = [name for name in names if not name.digest]
    return len(tags) <= 1 and len({name.name for name in names}) == 1


def _short(image: Image) -> str:
    return image.id.removeprefix("sha256:")[:12]
