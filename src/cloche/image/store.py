"""Images and their names, in the engine's database; found by name, by id, by the beginning of an id.

Looking an image up is on the way of every start: one query, and nothing imported for what only changing images needs.
Ids are digests of configurations; names are kept whole (docker.io/library/alpine:latest). Times are nanoseconds since
1970. Not its business: opening the database, and which containers use what: both come from the engine.
"""

from __future__ import annotations

from cloche.errors import Conflict, Error, Invalid, NotFound
from cloche.oci import image as image_config
from cloche.oci.digest import is_hex
from cloche.oci.image import ImageConfig
from cloche.oci.reference import Reference, parse
from cloche.transaction import Transaction
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, BinaryIO

    from cloche.image.removal import Removal
    from cloche.image.staging import StagedLayer, Staging

# AUTOINCREMENT: the number of a layer that is gone is never another layer's. Documents are kept byte for byte.
# images.layers: numbers, bottom first; images.blobs: digests of the layers as they came; both separated by blanks.
SCHEMA = """
CREATE TABLE IF NOT EXISTS layers (
  number INTEGER PRIMARY KEY AUTOINCREMENT, chain TEXT NOT NULL UNIQUE, diff_id TEXT NOT NULL, size INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS images (
  id TEXT PRIMARY KEY, config TEXT NOT NULL, manifest TEXT NOT NULL, layers TEXT NOT NULL, blobs TEXT NOT NULL,
  size INTEGER NOT NULL, created INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS tags (reference TEXT PRIMARY KEY, image TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS tags_image ON tags (image);
"""

_SELECT = """
SELECT id, config, layers, size, created, (SELECT group_concat(reference, ' ') FROM tags WHERE image = images.id)
FROM images
"""


class Image(Value):
    """An image as it is kept.

    layers: numbers of layer directories, bottom first. references: whole names, with tag or digest. size: bytes of the
    files in all layers. created: when it was built, 0 if it does not say.
    """

    id: str
    config: ImageConfig
    layers: tuple[int, ...]
    references: tuple[str, ...]
    size: int
    created: int


class Documents(Value):
    """What an image was made of. blobs: digests of its layers as they are kept, bottom first."""

    config: bytes
    manifest: bytes
    blobs: tuple[str, ...]


class Use(Value):
    """A container that exists. image: its image's id; layers: what its root stands on, kept although the image may
    go."""

    container: str
    image: str
    running: bool
    layers: tuple[int, ...]


class ImageStore:
    """The images of the store whose directory is `root`; `db` has SCHEMA in it and commits by itself."""

    def __init__(self, root: str, db: sqlite3.Connection) -> None:
        self.root, self.db = root, db

    def resolve(self, text: str) -> Image:
        """The image that `text` names, as Docker looks for it: an id, a name, the beginning of an id.

        Raises NotFound; Conflict (several ids begin so), Invalid (neither a name nor an id).
        """
        digits = text.removeprefix("sha256:")
        row = None
        if len(digits) == 64 and is_hex(digits):
            row = self.db.execute(_SELECT + "WHERE id = ?", ("sha256:" + digits,)).fetchone()
        else:
            name = parse(text).key
            row = self.db.execute(
                _SELECT + "WHERE id = (SELECT image FROM tags WHERE reference = ?)", (name,)
            ).fetchone()
            if row is None and is_hex(digits):
                row = self._by_prefix(text, "sha256:" + digits)
        if row is None:
            hint = "`cloche images` lists them; `cloche load` and `cloche pack` make them"
            raise NotFound(f"No such image: {text}", "", hint)
        return _image(row)

    def _by_prefix(self, text: str, prefix: str) -> Any:
        # `g` comes right after the digits
        rows = self.db.execute(_SELECT + "WHERE id >= ? AND id < ? LIMIT 2", (prefix, prefix + "g")).fetchall()
        if len(rows) > 1:
            raise Conflict(f"find the image {text}", "several ids begin so", "give more of it")
        return rows[0] if rows else None

    def images(self) -> list[Image]:
        """All of them, the one built last first."""
        return [_image(row) for row in self.db.execute(_SELECT + "ORDER BY created DESC, id")]

    def manifest(self, image_id: str) -> bytes:
        """The manifest of an image, byte for byte. Raises NotFound."""
        return self.documents(image_id).manifest

    def documents(self, image_id: str) -> Documents:
        """The documents of an image, byte for byte. Raises NotFound."""
        row = self.db.execute("SELECT config, manifest, blobs FROM images WHERE id = ?", (image_id,)).fetchone()
        if row is None:
            raise NotFound(f"No such image: {image_id}")
        return Documents(row[0].encode(), row[1].encode(), tuple(row[2].split()))

    def note_digest(self, image_id: str, reference: Reference) -> None:
        """A registry has the image under this name, which has a digest. Raises Error."""
        with Changing(self.db):
            if self.db.execute("SELECT 1 FROM images WHERE id = ?", (image_id,)).fetchone():
                self.db.execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", (reference.key, image_id))

    def tag(self, source: str, target: str) -> Image:
        """Give the image `source` one more name; taken from the image that had it. Raises NotFound, Conflict,
        Invalid."""
        reference = parse(target)
        if reference.digest:
            raise Invalid(f"tag {target}", "a name that has a digest cannot be given", "leave out what comes after @")
        check_name(reference)
        with Changing(self.db):
            found = self.resolve(source)
            self.db.execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", (reference.key, found.id))
        return self.resolve(found.id)

    def remove(self, text: str, force: bool = False, in_use: Callable[[], Iterable[Use]] = tuple) -> Removal:
        """Take a name from an image, or the image away, by Docker's rules; what only it needed is discarded.

        in_use: asked while the database is locked, so that no container can begin to use it. Raises NotFound, Conflict.
        """
        from cloche.image.garbage import collect
        from cloche.image.removal import remove

        removal = remove(self, text, force, in_use)
        if removal.deleted:
            collect(self.root, self.db, in_use)
        return removal

    def staging(self) -> Staging:
        """What images are made in: a context manager. See image/staging."""
        from cloche.image.staging import Staging

        return Staging(self.root, self.db)

    def add(
        self, config: bytes, manifest: bytes | None, layers: Sequence[BinaryIO], references: Sequence[str] = ()
    ) -> Image:
        """Keep an image: its documents as they are, its layers (bottom first, compressed or not), its names; all or
        nothing.

        Raises Invalid (a document or layer is malformed, or a digest is another), Unsupported, Error.
        """
        with self.staging() as staging:
            diff_ids = image_config.parse(config).diff_ids
            if len(diff_ids) != len(layers):
                raise Invalid("add an image", f"its config has {len(diff_ids)} layers, not {len(layers)}")
            staged: list[StagedLayer] = []
            for source, diff_id in zip(layers, diff_ids, strict=True):
                staged.append(staging.layer(staged, staging.blob(source).digest, diff_id))
            staging.image(config, manifest, staged, references)
            return staging.commit()[0]

    def collect(self, in_use: Callable[[], Iterable[Use]]) -> bool:
        """Discard layers and content that nothing needs. False: another process is adding images, try again later."""
        from cloche.image.garbage import collect

        return collect(self.root, self.db, in_use)

    def recover(self) -> bool:
        """Discard what a killed process left half made. False: another process is adding images, try again later."""
        from cloche.image.garbage import recover

        return recover(self.root, self.db)


class Changing(Transaction):
    """What is done to the images inside happens at once or not at all; others wait. Raises Error (disk full, locked for
    too long)."""

    def __enter__(self) -> None:
        try:
            super().__enter__()
        except Exception as error:
            _say(error)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            super().__exit__(kind, error, trace)
        except Exception as problem:
            _say(problem)
            raise
        _say(error)


def _say(error: BaseException | None) -> None:
    """What the database has said, in our words. Raises Error."""
    from sqlite3 import Error as DatabaseError

    if isinstance(error, DatabaseError):
        raise Error("change the images", str(error), "is the disk full?") from error


def check_name(reference: Reference) -> None:
    """Refuse the name `sha256`: with a tag it would read like an id. Raises Invalid."""
    if reference.familiar_name() == "sha256":
        raise Invalid(f"tag {reference.familiar()}", "the name of a digest's algorithm cannot be an image's")


def _image(row: Any) -> Image:
    return Image(
        row[0],
        image_config.parse(row[1]),
        tuple(map(int, row[2].split())),
        tuple(sorted((row[5] or "").split())),
        row[3],
        row[4],
    )
