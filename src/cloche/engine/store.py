"""Where one store keeps its things: a root for what lasts, a run directory for what ends with the boot.

ROOT/db                     what is listed and searched
ROOT/content, ROOT/layers   images
ROOT/containers/ID          upper, work, logs, files that are bound into the container
ROOT/volumes/NAME/_data     a volume's files
RUN/keeper                  0700: socket, lock, pids
RUN/plans/ID                the plan of what exists in the kernel for a container; undone, it is removed
RUN/mnt                     mount points, used in private mount namespaces only
"""

from __future__ import annotations

import os

from cloche.value import Value

DEFAULT_ROOT = "/var/lib/cloche"


class Store(Value):
    """The places of one store."""

    root: str
    run: str
    parent: str  # the cgroup above all containers' of this store

    @property
    def socket(self) -> str:
        """Where the keeper listens."""
        return self.run + "/keeper/socket"

    def container(self, ident: str) -> str:
        """A container's directory."""
        return f"{self.root}/containers/{ident}"

    def volume(self, name: str) -> str:
        """A volume's directory; its files are in `_data`."""
        return f"{self.root}/volumes/{name}"

    def plan(self, ident: str) -> str:
        """The file that holds the plan of a container that may exist in the kernel."""
        return f"{self.run}/plans/{ident}"

    def cgroup(self, ident: str, parent: str = "") -> str:
        """A container's group, below each hierarchy's root; in the store's own, or another `parent`."""
        return f"/{parent.strip('/') or self.parent}/{ident}"


def locate(root: str | None = None) -> Store:
    """The store at `root`, at CLOCHE_ROOT, or the machine's. Makes nothing."""
    path = os.path.abspath(root or os.environ.get("CLOCHE_ROOT") or DEFAULT_ROOT)
    if path == DEFAULT_ROOT:
        return Store(path, "/run/cloche", "cloche")
    from binascii import crc32

    return Store(path, path + "/run", "cloche-" + f"{crc32(os.fsencode(path)):08x}")


def prepare(store: Store) -> None:
    """Make the store's directories. Raises OSError."""
    for path, mode in (
        (store.root, 0o711),
        (store.root + "/containers", 0o700),
        (store.run, 0o711),
        (store.run + "/keeper", 0o700),
        (store.run + "/plans", 0o700),
        (store.run + "/mnt", 0o711),
        (store.run + "/mnt/root", 0o755),
        (store.run + "/mnt/lower", 0o755),
    ):
        try:
            os.mkdir(path, mode)
            os.chmod(path, mode)
        except FileExistsError:
            pass
        except FileNotFoundError:
            os.makedirs(path, mode)


def write_whole(path: str, content: bytes) -> None:
    """Write a file to its end: where room is short, write(2) takes a part and says nothing. Raises OSError."""
    with open(path, "wb", 0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
