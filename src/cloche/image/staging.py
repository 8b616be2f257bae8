"""Images in the making: written aside, then there at once.

    ROOT/aside/RANDOM/blobs/N, .../layers/N      being written
    ROOT/content/sha256/HEX, ROOT/layers/N/diff  in use
    ROOT/aside/lock                              shared by who makes images; garbage is collected with it alone

A killed process leaves its directory aside and nothing else that is seen: first all is on disk (one syncfs(2)), then,
in one transaction, directories are renamed and rows written. Until then nothing may be collected that was found to be
there already; that is what the lock is for. See image/garbage for who takes the left-overs away.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import closing
from itertools import count

from cloche.errors import Error, Invalid, Unsupported
from cloche.image.store import Changing, check_name
from cloche.kernel.filesystems import syncfs
from cloche.oci import image as image_config
from cloche.oci import manifest as image_manifest
from cloche.oci.descriptor import Descriptor
from cloche.oci.digest import chain_ids, digest_of
from cloche.oci.document import SIZE_MAX
from cloche.oci.manifest import CONFIG, LAYER, Manifest
from cloche.oci.reference import parse
from cloche.storage.compression import compression_of
from cloche.storage.content import Blob, ContentStore, pieces, sync, write
from cloche.storage.layers import Limits, unpack
from cloche.storage.overlay import layer_folder
from cloche.storage.trash import discard, remove_at_once
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence
    from typing import BinaryIO, Self

    from cloche.image.store import Image
    from cloche.storage.ahead import Arriving


class StagedLayer(Value):
    """A layer that is there, or will be: number 0. blob: the digest of the stream that it was unpacked from."""

    chain: str
    diff_id: str
    folder: str
    size: int
    blob: str
    number: int = 0


class _StagedImage(Value):
    """An image that will be there. `layers` are chains."""

    id: str
    config: str
    manifest: str
    layers: tuple[str, ...]
    blobs: tuple[str, ...]
    size: int
    created: int
    references: tuple[str, ...]


class Staging:
    """Makes images below `root`. Enter it, add blobs, layers and images, `commit()`; leaving without leaves nothing."""

    def __init__(self, root: str, db: sqlite3.Connection, limits: Limits | None = None) -> None:
        self._root, self._db, self._limits = root, db, limits or Limits()
        self._content = ContentStore(root)
        self._blobs: dict[str, str] = {}  # written aside: digest to path
        self._layers: dict[str, StagedLayer] = {}  # by chain
        self._images: dict[str, _StagedImage] = {}
        self._numbers = count(1)
        self._lock = -1
        self._aside = ""

    def __enter__(self) -> Self:
        try:
            for name in ("aside", "trash", "layers"):
                os.makedirs(f"{self._root}/{name}", 0o700, exist_ok=True)
            self._lock = lock(self._root, fcntl.LOCK_SH)
            name = os.urandom(10).hex()
            os.mkdir(f"{self._root}/aside/{name}", 0o700)
            self._aside = f"{self._root}/aside/{name}"
            os.mkdir(self._aside + "/layers", 0o700)
            os.mkdir(self._aside + "/blobs", 0o700)
        except OSError as e:
            self.__exit__()
            raise Error(f"make images in {self._root}", e.errno or "") from None
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._aside:
                remove_at_once(self._aside)
        finally:
            if self._lock >= 0:
                os.close(self._lock)
            self._lock, self._aside = -1, ""

    # Content

    def blob(self, source: BinaryIO, digest: str = "", size: int | None = None) -> Blob:
        """Keep a stream, to its end. Raises Invalid (another digest or size than announced), Error."""
        return self.keep(pieces(source), digest, size)

    def keep(
        self,
        chunks: Iterable[bytes | memoryview],
        digest: str = "",
        size: int | None = None,
        arriving: Arriving | None = None,
    ) -> Blob:
        """Keep what comes in chunks; who has `arriving` may read it meanwhile. Raises as `blob`."""
        path = self._next("blobs")
        chunks = arriving.watched(chunks, path) if arriving else chunks
        try:
            found = write(chunks, path, digest, size, self._limits.bytes)
        except OSError as e:
            raise Error("keep the content of an image", e.errno or str(e)) from None
        self._blobs[found.digest] = path
        return found

    def open(self, digest: str) -> BinaryIO:
        """A stream of content that was kept here, or before. Raises NotFound, Error."""
        path = self._blobs.get(digest)
        if path is None:
            return self._content.open(digest)
        return open(path, "rb", buffering=0)

    def read(self, digest: str) -> bytes:
        """A document that was kept as content. Raises NotFound, Invalid (too large), Error."""
        with self.open(digest) as file:
            data = b"".join(pieces(file)) if os.fstat(file.fileno()).st_size <= SIZE_MAX else None
        if data is None:
            raise Invalid(f"read the document {digest}", f"it is larger than {SIZE_MAX >> 20} MiB")
        return data

    def _next(self, kind: str) -> str:
        return f"{self._aside}/{kind}/{next(self._numbers)}"  # one step of C: threads get different ones

    # Layers

    def layer(
        self, below: Sequence[StagedLayer], blob: str, diff_id: str = "", arriving: Arriving | None = None
    ) -> StagedLayer:
        """The layer that content makes on top of `below`, bottom first; unpacked unless it is there already.

        diff_id: the digest of its plain tar, empty for any. arriving: the content, of which nobody knows yet whether it
        is what was announced: then what it makes is not to be used. Raises Invalid, Unsupported, Error.
        """
        found = diff_id and self._known([*(layer.diff_id for layer in below), diff_id], blob)
        if found:
            return found
        place = self._next("layers")
        try:
            os.mkdir(place, 0o700)
        except OSError as e:
            raise Error("unpack a layer", e.errno or "") from None
        with closing(arriving or self.open(blob)) as source:
            lower = [layer.folder for layer in reversed(below)]
            what = f"unpack the layer {(diff_id or blob)[:19]}"
            unpacked = unpack(source, place + "/diff", lower, diff_id, self._limits, what)
        if not diff_id and (known := self._known([*(layer.diff_id for layer in below), unpacked.diff_id], blob)):
            discard(self._root, place)
            return known
        chain = chain_ids([*(layer.diff_id for layer in below), unpacked.diff_id])[-1]
        layer = StagedLayer(chain, unpacked.diff_id, place + "/diff", unpacked.size, blob)
        self._layers[chain] = layer
        return layer

    def blobs_of(self, image: str) -> tuple[str, ...]:
        """What the layers of an image that is there are kept as. Raises NotFound."""
        from cloche.image.store import ImageStore

        return ImageStore(self._root, self._db).documents(image).blobs

    def is_there(self, diff_ids: Sequence[str], blob: str) -> bool:
        """Whether the layer that these make, bottom first, need not be fetched: it is here, and so is `blob`, without
        which the image could not leave as it came."""
        return self._known(list(diff_ids), blob) is not None and self._content.has(blob)

    def _known(self, diff_ids: list[str], blob: str) -> StagedLayer | None:
        chain = chain_ids(diff_ids)[-1]
        if chain not in self._layers:
            row = self._db.execute("SELECT number, size FROM layers WHERE chain = ?", (chain,)).fetchone()
            if row is None or not os.path.isdir(folder := layer_folder(self._root, row[0])):
                return None
            self._layers[chain] = StagedLayer(chain, diff_ids[-1], folder, row[1], blob, row[0])
        return self._layers[chain].replace(blob=blob)

    # Images

    def image(
        self, config: bytes, manifest: bytes | None, layers: Sequence[StagedLayer], references: Iterable[str] = ()
    ) -> str:
        """An image of these layers, bottom first; its id. A manifest is written where it has none.

        Raises Invalid (config and layers do not fit, a malformed name), Unsupported (not for Linux).
        """
        read = image_config.parse(config)
        if read.os.lower() != "linux":
            raise Unsupported("add an image", f"it is made for {read.os}")
        if read.diff_ids != tuple(layer.diff_id for layer in layers):
            raise Invalid("add an image", "its config names other layers than it has")
        if not layers:
            raise Unsupported("add an image", "it has no layers, so there would be nothing to run in it")
        names = [parse(name) for name in references]
        for name in names:
            check_name(name)
        ident = digest_of(config)
        text = (manifest or image_manifest.write(self._manifest(config, layers))).decode()
        keys = tuple(name.key for name in names)
        before = self._images.get(ident)
        self._images[ident] = _StagedImage(
            ident,
            config.decode(),
            text,
            tuple(layer.chain for layer in layers),
            tuple(layer.blob for layer in layers),
            sum(layer.size for layer in layers),
            nanoseconds(read.created),
            (*(before.references if before else ()), *keys),
        )
        return ident

    def _manifest(self, config: bytes, layers: Sequence[StagedLayer]) -> Manifest:
        return Manifest(
            Descriptor(CONFIG, digest_of(config), len(config)),
            tuple(Descriptor(*self._described(layer.blob)) for layer in layers),
        )

    def _described(self, blob: str) -> tuple[str, str, int]:
        with self.open(blob) as file:
            kind = compression_of(file.read(6))
            return f"{LAYER}+{kind}" if kind else LAYER, blob, os.fstat(file.fileno()).st_size

    def commit(self) -> list[Image]:
        """Make all that was staged be there. Returns the images, in the order in which they were added. Raises
        Error."""
        from cloche.image.store import ImageStore

        placed: list[str] = []
        try:
            self._sync()
            with Changing(self._db):
                chains = [chain for image in self._images.values() for chain in image.layers]
                numbers = {chain: self._place(chain, placed) for chain in chains}
                for blob in {blob for image in self._images.values() if self._takes(image) for blob in image.blobs}:
                    if blob in self._blobs:
                        self._content.place(self._blobs[blob], blob)
                for folder in (self._root + "/layers", self._content.folder):
                    if os.path.isdir(folder):
                        sync(folder)
                for image in self._images.values():
                    self._write(image, numbers)
        except BaseException as e:
            for folder in placed:
                discard(self._root, folder)
            if isinstance(e, OSError):
                raise Error("add an image", e.errno or "") from None
            raise
        store = ImageStore(self._root, self._db)
        return [store.resolve(ident) for ident in self._images]

    def _sync(self) -> None:
        fd = os.open(self._aside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)
        finally:
            os.close(fd)

    def _place(self, chain: str, placed: list[str]) -> int:
        """The number of a layer; unless another process was first, its directory is renamed to that."""
        layer = self._layers[chain]
        row = self._db.execute("SELECT number FROM layers WHERE chain = ?", (chain,)).fetchone()
        if row is not None and os.path.isdir(layer_folder(self._root, row[0])):
            return int(row[0])
        if row is not None:  # its directory was lost, by a power cut or by hand
            number = int(row[0])
        else:
            values = (chain, layer.diff_id, layer.size)
            made = self._db.execute("INSERT INTO layers (chain, diff_id, size) VALUES (?, ?, ?)", values).lastrowid
            number = made or 0
        folder = f"{self._root}/layers/{number}"
        discard(self._root, folder)  # of a process that was killed right here
        os.rename(os.path.dirname(layer.folder), folder)
        placed.append(folder)
        return number

    def _takes(self, image: _StagedImage) -> bool:
        """Whether its manifest and blobs are kept: one that is there has its own, which may be the same layers
        compressed otherwise; what comes from a registry is kept in its place, to leave as it came."""
        if any("@" in name for name in image.references):
            return True
        return self._db.execute("SELECT 1 FROM images WHERE id = ?", (image.id,)).fetchone() is None

    def _write(self, image: _StagedImage, numbers: dict[str, int]) -> None:
        layers, blobs = " ".join(str(numbers[chain]) for chain in image.layers), " ".join(image.blobs)
        if self._takes(image):
            values = (image.id, image.config, image.manifest, layers, blobs, image.size, image.created)
            self._db.execute(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET manifest = excluded.manifest, blobs = excluded.blobs",
                values,
            )
        self._db.executemany("INSERT OR REPLACE INTO tags VALUES (?, ?)", [(r, image.id) for r in image.references])


def lock(root: str, kind: int) -> int:
    """A descriptor that holds the lock of the images below `root` until it is closed. Raises OSError."""
    fd = os.open(root + "/aside/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, kind)
    except OSError:
        os.close(fd)
        raise
    return fd


def nanoseconds(text: str) -> int:
    """Since 1970, of a time like 2015-10-31T22:22:56.015925234Z (RFC 3339); 0 where it is none."""
    from datetime import UTC, datetime

    whole, dot, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789")) if dot else 0
    try:
        time = datetime.fromisoformat(whole + rest[digits:])
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        found = int(time.timestamp()) * 1_000_000_000 + int(rest[:digits][:9].ljust(9, "0"))
        return found if 0 <= found < 1 << 63 else 0
    except (ValueError, OverflowError):
        return 0
