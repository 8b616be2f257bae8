"""Snapshots by overlayfs: an image's layers below, a directory of the container's own above.

    ROOT/layers/N/diff                      one layer, shared, never written; short names, for mount(2) takes 4096 bytes
    ROOT/containers/ID/upper, .../work      the container's

Source: Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
from stat import S_IMODE

from cloche.errors import Conflict, Error, Invalid, NotFound, Unsupported
from cloche.step.rootfs import Overlay
from cloche.storage.snapshot import Snapshot
from cloche.storage.trash import discard

# An upper directory stays readable without its overlay, for diffs; and after a crash it can be mounted again while
# the old mount is still on its way out. Every kernel that has openat2(2) knows these.
_OPTIONS = ("index=off", "metacopy=off", "redirect_dir=off")
_NO_UPPER = ("overlay", "nfs", "nfs4", "vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "9p", "cifs", "smb3", "ecryptfs")


def layer_folder(root: str, number: int) -> str:
    """The directory of a layer's files."""
    return f"{root}/layers/{number}/diff"


def prepare(root: str, container_id: str, layers: tuple[int, ...]) -> Snapshot:
    """A container's own directory over `layers`, bottom first. See `Driver.prepare`."""
    what = f"make the files of the container {container_id}"
    if not layers:
        raise Invalid(what, "an overlay needs a layer below")
    place = f"{root}/containers/{container_id}"
    upper, work = place + "/upper", place + "/work"
    try:
        top = os.stat(layer_folder(root, layers[-1]))
    except FileNotFoundError:
        raise NotFound(what, f"the layer {layers[-1]} is not there", "remove the image and load it again") from None
    try:
        os.makedirs(place, 0o700, exist_ok=True)
        os.mkdir(work, 0o700)
        # the root of the merged tree is the upper's, so it has to look like the image's
        os.mkdir(upper, 0o700)
        os.chown(upper, top.st_uid, top.st_gid)
        os.chmod(upper, S_IMODE(top.st_mode))
    except FileExistsError:
        raise Conflict(what, "it has files already", f"remove {place}") from None
    except OSError as e:
        raise Error(what, e.errno or "") from None
    return existing(root, container_id, layers)


def existing(root: str, container_id: str, layers: tuple[int, ...]) -> Snapshot:
    """The snapshot that `prepare` made before."""
    place = f"{root}/containers/{container_id}"
    lower = tuple(f"{number}/diff" for number in reversed(layers))
    return Snapshot((Overlay(root + "/layers", lower, place + "/upper", place + "/work", _OPTIONS),))


def remove(root: str, container_id: str) -> None:
    """One rename of the container's directory into the trash. See `Driver.remove`."""
    discard(root, f"{root}/containers/{container_id}")


def probe(root: str) -> None:
    """Whether overlays can be mounted here, with upper directories below `root`. Raises Unsupported."""
    import errno

    from cloche.kernel import filesystems

    what = "use overlays"
    try:
        filesystems.probe("overlay")
    except OSError as e:
        if e.errno == errno.ENODEV:
            raise Unsupported(what, "this kernel has no overlay file system", "try: modprobe overlay") from None
        raise Unsupported(what, e.errno or "", "run cloche as root" if e.errno == errno.EPERM else "") from None
    kind = filesystems.type_of(root)
    if kind in _NO_UPPER:
        hint = "set CLOCHE_ROOT to a folder on ext4, xfs, btrfs or tmpfs"
        raise Unsupported(what, f"{root} is on {kind}, which cannot be the upper side", hint)
