"""What the image has at a new volume's target is copied into the volume, whole or not at all.

    ROOT/volumes/NAME/_making    a copy that is being made; after a kill it is rubbish
    ROOT/volumes/NAME/_ready     a whole one: its entries are moved into _data, by whoever comes next if need be

The moves, instead of one rename of all, keep `_data` the directory that containers may have mounted already. Who does
any of it has the lock on the volume's directory (flock(2)), which ends with its process. The image is seen as its
container would see it, through an overlay in a mount namespace that one thread has to itself and that ends with it.
"""

from __future__ import annotations

import fcntl
import os

from cloche.errors import Error, Invalid, Unsupported
from cloche.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2, rename_new
from cloche.storage.copying import copy_tree, give_attributes
from cloche.storage.trash import discard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.engine.request import FileMount
    from cloche.engine.store import Store

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPTIONS = "index=off,metacopy=off,redirect_dir=off"
_READ_ONLY = 1 | 2 | 4 | 8  # MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC


def fill(store: Store, ident: str, layers: tuple[int, ...], mounts: tuple[FileMount, ...]) -> None:
    """Fill the empty ones of a new container's volumes. Raises Error, Invalid, Unsupported, OSError."""
    pending = [m for m in mounts if m.kind == "volume" and m.copy and not m.subpath and _is_empty(store, m.source)]
    if not pending:
        return

    def work(image: int, check: Callable[[], None]) -> None:
        for mount in pending:
            _fill_one(store, mount, image, check)

    _with_image(store, ident, layers, work)


def finish(store: Store, name: str) -> None:
    """Complete what a killed process has left of filling a volume; mostly there is nothing. Raises OSError, Error."""
    place = store.volume(name)
    if os.path.lexists(place + "/_ready"):
        with _Locked(place):
            _move_in(store, place)


def _is_empty(store: Store, name: str) -> bool:
    place = store.volume(name)
    with os.scandir(place + "/_data") as entries:
        return next(entries, None) is None or os.path.lexists(place + "/_ready")


class _Locked:
    """A directory that nobody else works on."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> int:
        self._fd = os.open(self._place, _FOLDER)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _fill_one(store: Store, mount: FileMount, image: int, check: Callable[[], None]) -> None:
    from cloche.kernel.filesystems import syncfs

    what = f"copy the image's {mount.target} into the volume {mount.source}"
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        source = openat2(image, mount.target, flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise Invalid(what, "it is no directory there", "mount the volume on a directory") from None
    except OSError as error:
        raise Error(what, error.errno or 5) from error
    place = store.volume(mount.source)
    making = place + "/_making"
    try:
        with _Locked(place) as folder:
            _move_in(store, place)
            if not _is_empty(store, mount.source):
                return
            discard(store.root, making)
            os.mkdir(making, 0o700)
            try:
                target = os.open(making, _FOLDER)
                try:
                    if copy_tree(source, target, check):
                        syncfs(folder)
                finally:
                    os.close(target)
                os.rename(making, place + "/_ready")
            except BaseException:
                discard(store.root, making)
                raise
            _move_in(store, place)
    except OSError as error:
        raise Error(what, error.errno or 5, "is the disk full?" if error.errno == 28 else "") from error
    finally:
        os.close(source)


def _move_in(store: Store, place: str) -> None:
    """From `_ready` to `_data`; may be done again. What a container has made there meanwhile stays."""
    try:
        ready = os.open(place + "/_ready", _FOLDER)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(ready)
        data = os.open(place + "/_data", _FOLDER)
        try:
            for name in os.listdir(ready):
                try:
                    rename_new(ready, name, data, name)
                except FileExistsError:
                    continue
            give_attributes(ready, data, status)
        finally:
            os.close(data)
    finally:
        os.close(ready)
    discard(store.root, place + "/_ready")


def _with_image(
    store: Store, ident: str, layers: tuple[int, ...], work: Callable[[int, Callable[[], None]], None]
) -> None:
    """Call `work` with the root of the container's image, and with what it shall call often: it ends what nobody waits
    for any more. Raises what `work` raises."""
    from _thread import allocate_lock, start_new_thread

    lower = (f"../containers/{ident}/upper", *(f"{number}/diff" for number in reversed(layers)))
    data = f"lowerdir={':'.join(lower)},{_OPTIONS}"
    if len(data.encode()) > 4095:
        raise Unsupported(f"mount an overlay of {len(lower)} layers", "their names do not fit in one page")
    done = allocate_lock()
    done.acquire()
    problems: list[BaseException] = []
    given_up: list[BaseException] = []

    def check() -> None:
        if given_up:
            raise InterruptedError

    def body() -> None:
        try:
            _look_in(store, data, lambda image: work(image, check))
        except BaseException as problem:  # noqa: BLE001 - it is raised where it is waited for
            problems.append(problem)
        finally:
            done.release()

    start_new_thread(body, ())
    try:
        done.acquire()
    except BaseException as interruption:
        given_up.append(interruption)
        done.acquire()
        raise
    if problems:
        raise problems[0]


def _look_in(store: Store, data: str, work: Callable[[int], None]) -> None:
    """In a thread of its own: unshare(2) of the mount namespace gives it a working directory of its own, too."""
    from cloche.kernel.mounts import MNT_DETACH, MS_PRIVATE, MS_REC, mount, umount2
    from cloche.kernel.namespaces import KINDS, unshare

    place = store.run + "/mnt/lower"
    try:
        unshare(KINDS["mount"][0])
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        os.chdir(store.root + "/layers")
        mount("overlay", place, "overlay", _READ_ONLY, data)
    except OSError as error:
        raise Error("look into the image", error.errno or 5, "run as root") from error
    try:
        image = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            work(image)
        finally:
            os.close(image)
    finally:
        umount2(place, MNT_DETACH)
