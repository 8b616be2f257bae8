"""What goes into an image of a host's own programs: the programs, their loader, libraries, interpreters and data.

`collect()` reads and runs nothing. Links are packed as the host has them, each with the whole way to its end, so that
paths mean the same inside. Not its business: writing the layer (see `entries`), the image (see `pack`).
Source: ld.so(8), execve(2) for scripts, nss(5), terminfo(5).
"""

from __future__ import annotations

import errno
import os
from stat import S_IMODE, S_ISDIR, S_ISLNK, S_ISREG
from typing import TYPE_CHECKING

from cloche.errors import Error, Invalid, NotFound
from cloche.image.elf import MAGIC
from cloche.image.entries import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry, is_secret
from cloche.image.libraries import Dependency, Libraries
from cloche.image.tree import Tree
from cloche.value import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloche.image.elf import Elf

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_FOLDERS = {"dev": 0o755, "etc": 0o755, "proc": 0o555, "root": 0o700, "sys": 0o555, "tmp": 0o1777}
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnobody:x:65534:\n",  # 5: the group of terminals in a container's /dev/pts
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\n",
    # Engines bind their own there: to make them in a container's first writable layer costs a start 0.7 ms.
    "etc/hostname": "",
    "etc/hosts": "",
    "etc/resolv.conf": "",
}
_MERGED = ("/bin", "/sbin", "/lib", "/lib64")  # links into /usr on most hosts: packed, so that /bin/sh is there
_KERNEL = ("/proc", "/sys", "/dev")
_KERNEL_TYPES = b"proc sysfs devtmpfs devpts cgroup cgroup2 mqueue securityfs debugfs tracefs".split()
_TERMINALS = (
    "ansi dumb linux rxvt rxvt-unicode screen screen-256color tmux tmux-256color vt100 vt220 xterm xterm-256color"
).split()
_LINE_MAX = 256  # execve(2): longer first lines of scripts are cut
_INTERPRETERS_MAX = 5  # execve(2): more levels of scripts are ELOOP
_LIBC_MAX = 64 << 20


class Packing(Value):
    """What goes into an image. `programs`: the absolute paths of the programs asked for. `notes`: what was left out and
    why. `facts`: of the first ELF program, for the machine it is made for."""

    entries: tuple[Entry, ...]
    programs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    facts: Elf | None = None


def collect(
    programs: Sequence[str],
    add: Sequence[str] = (),
    path: str | None = None,
    root: str = "/",
    optional: Sequence[str] = (),
) -> Packing:
    """Everything that `programs` need, and the files and folders `add`.

    programs: names, looked for in `path` (default: $PATH) as a shell does, or paths. root: where the host's files are.
    optional: more programs, each left out with a note if it cannot be packed.
    Raises NotFound (a program or library that is nowhere), Invalid (no program, a loop of links, a device),
    Error (unreadable).
    """
    if not programs:
        raise Invalid("pack an image", "no program was named")
    packer = _Packer(Tree(root), os.environ.get("PATH", PATH) if path is None else path)
    for name in programs:
        packer.add_program(name)
    for name in optional:
        packer.add_if_possible(name)
    for each in add:
        packer.add(each)
    return packer.finish()


class _Packer:
    """Gathers entries; each path once."""

    def __init__(self, tree: Tree, path: str) -> None:
        self.tree, self.path = tree, path
        self.libraries = Libraries(tree)
        self.entries: dict[str, Entry] = {}
        self.programs: list[str] = []
        self.notes: dict[str, bool] = {}
        self.facts: Elf | None = None
        self.same: dict[tuple[int, int], list[str]] = {}  # names of one file with several
        self.opened: dict[str, bool] = {}  # libraries whose later wishes are packed
        self.cancels: dict[str, bool] = {}  # objects by path: whether they end threads
        self.done: set[str] = set()  # programs and folders looked through, by resolved path
        self.secrets = self._secrets()
        self.kernel_folders = _kernel_folders() if not tree.root else frozenset()

    # Programs

    def add_program(self, name: str) -> None:
        """A program by name or path, as it was asked for."""
        found = self.find_program(name)
        self._program(found, "asked for", 0)
        self.programs.append(found)

    def find_program(self, name: str) -> str:
        """The absolute path that a shell would run for `name`."""
        if "/" in name:
            found = self._absolute(name)
            way = self.tree.walk(found)
            if S_ISDIR(self.tree.lstat(way.path).st_mode):
                raise Invalid(f"pack {name}", "it is a directory, not a program", f"--add {name} packs what is in it")
            return found
        for folder in self.path.split(":"):
            found = self._absolute(os.path.join(folder, name))
            there = self.tree.find(found) if name else None
            if there is not None and self._may_run(there.path):
                return found
        raise NotFound(f"pack {name}", "there is no such program in PATH", "give its path")

    def _absolute(self, path: str) -> str:
        """`path` from the root, tidied where that leads to the same file."""
        try:
            whole = path if path.startswith("/") else os.path.join(os.getcwd(), path)
        except OSError as e:
            raise Error(f"find {path} from the working directory", e.errno or "") from None
        tidy = os.path.normpath(whole).replace("//", "/")
        return tidy if self.tree.find(tidy) in (None, self.tree.find(whole)) else whole

    def _may_run(self, path: str) -> bool:
        return S_ISREG(self.tree.lstat(path).st_mode) and os.access(self.tree.root + path, os.X_OK)

    def add_if_possible(self, name: str) -> None:
        """A program that may be left out: one that is broken on this host gets a note."""
        try:
            self.add_program(name)
        except Error as e:
            self._note(f"{name}: left out: {e}")

    def _program(self, path: str, why: str, depth: int) -> None:
        """Pack a program after all that it needs: of one that lacks something, nothing is packed."""
        real = self.tree.walk(path).path
        self._refuse_secret(path, real)
        if real not in self.done:
            if not self._may_run(real):
                raise _unfit(path, self.tree.lstat(real).st_mode)
            head = self.tree.read(real, _LINE_MAX)
            if head.startswith(MAGIC):
                self._elf_program(path)
            elif head.startswith(b"#!"):
                if depth == _INTERPRETERS_MAX:
                    raise Invalid(f"pack {path}", "too many interpreters that are scripts themselves")
                for interpreter in self._interpreters(path, head):
                    self._program(interpreter, f"runs {path}", depth + 1)
            else:
                raise Invalid(f"pack {path}", "it is neither an ELF program nor a script with a #! line")
        self._file(path, why)
        self.done.add(real)

    def _elf_program(self, path: str) -> None:
        facts = self.libraries.facts(path)
        if facts.needed and not facts.interpreter:
            raise Invalid(f"pack {path}", "it is a library, not a program", f"--add {path} packs it with its needs")
        self.facts = self.facts or facts
        self._depend(path, self.libraries.resolve(path))

    def _interpreters(self, script: str, head: bytes) -> list[str]:
        """The program of the #! line, and the one that `env` will look for."""
        line = os.fsdecode(head[2:].partition(b"\n")[0].strip(b" \t"))
        interpreter, _, argument = line.replace("\t", " ").partition(" ")
        if not interpreter.startswith("/"):
            raise Invalid(f"pack {script}", f"its interpreter {interpreter!r} is not an absolute path")
        try:
            self.tree.walk(interpreter)
            wanted = _asked_of_env(argument.strip()) if os.path.basename(interpreter) == "env" else ""
            return [interpreter, *([self.find_program(wanted)] if wanted else [])]
        except NotFound as e:
            raise NotFound(f"pack {script}", f"its interpreter is missing: {e}") from None

    # Libraries and what they load later

    def _depend(self, path: str, dependencies: tuple[Dependency, ...]) -> None:
        for d in dependencies:
            self._file(d.path, f"needed by {d.needed_by}")
        for d in dependencies:
            self._open_later(d)
        libc = next((d.path for d in dependencies if d.name == "libc.so.6"), "")
        if libc and any(self._may_cancel(p) for p in (path, *(d.path for d in dependencies)) if p != libc):
            missing: list[Dependency] = []
            for d in self.libraries.resolve(path, missing, also=("libgcc_s.so.1",)):
                self._file(d.path, f"needed by {d.needed_by}")
            self._note_missing(missing)

    def _open_later(self, dependency: Dependency) -> None:
        """Pack what a library opens at run time, and without which its programs do not work as people expect."""
        if dependency.path in self.opened:
            return
        self.opened[dependency.path] = True
        for path in self._opened_by(dependency):
            if self.tree.find(path) is not None:
                self._file(path, f"opened by {dependency.path}")
                if path.endswith(".so.2"):
                    self._depend(path, self.libraries.resolve(path))

    def _opened_by(self, dependency: Dependency) -> list[str]:
        name = dependency.name
        if name == "libc.so.6" and b"\0GLIBC_2.34\0" not in self.tree.read(dependency.path, _LIBC_MAX):
            folder = os.path.dirname(dependency.path)  # since glibc 2.34 these are part of libc itself
            return [f"{folder}/libnss_files.so.2", f"{folder}/libnss_dns.so.2"]
        if name.startswith(("libtinfo", "libncurses")):
            places = ("/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo")
            return [f"{p}/{sub}/{t}" for p in places for t in _TERMINALS for sub in (t[0], f"{ord(t[0]):x}")]
        return []

    def _may_cancel(self, path: str) -> bool:
        """pthread_exit(3) and pthread_cancel(3) open libgcc_s.so.1, and end the process where it is not there."""
        if path not in self.cancels:
            names = self.libraries.strings(path)
            self.cancels[path] = b"\0pthread_exit\0" in names or b"\0pthread_cancel\0" in names
        return self.cancels[path]

    # Files, folders, links

    def add(self, path: str) -> None:
        """A file or a folder with all in it, and what its links lead to."""
        asked = self._absolute(path)
        real = self.tree.walk(asked).path
        if real == "/":
            raise Invalid(f"add {path}", "that is the whole host", "name the folders that are needed")
        self._refuse_secret(path, real)
        links: list[str] = []
        self._way(asked, "added")
        self._below(real, "added", links)
        for link in links:
            self._follow(link)

    def _follow(self, link: str) -> None:
        """Pack what a link in an added folder leads to, if that is not packed yet; links in there are only kept."""
        try:
            way = self.tree.walk(link)
        except (NotFound, Invalid):
            self._note(f"{link}: a link that leads nowhere, packed as it is")
            return
        end, kind = way.path, self._mode(way.path)
        upward = f"{link}/".startswith(f"{end.rstrip('/')}/") and end not in self.done
        if upward or any(map(_by_kernel, way.crossed)) or not (S_ISDIR(kind) or S_ISREG(kind)):
            self._note(f"{link}: packed without {end}, where it leads")
            return
        self._way(link, f"linked from {link}")
        self._below(end, f"linked from {link}", [])

    def _below(self, real: str, why: str, links: list[str]) -> None:
        """The file or folder at a resolved path, and everything below it; links met are put into `links`."""
        pending = [real]
        while pending:
            path = pending.pop()
            mode = self.tree.lstat(path).st_mode
            if S_ISDIR(mode) and path in self.kernel_folders:
                self._note(f"{path}: left out, a file system made by the kernel")
            elif S_ISDIR(mode):
                self._entry(path, why)
                if path not in self.done:
                    self.done.add(path)
                    pending += [os.path.join(path, n) for n in self.tree.names(path)]
            elif self._is_secret(path):
                self._note(f"{path}: left out, password hashes are never packed")
            else:
                self._entry(path, why)
                if S_ISLNK(mode):
                    links.append(path)
                elif mode & 0o111 or ".so" in os.path.basename(path):
                    self._depend_if_elf(path)

    def _depend_if_elf(self, path: str) -> None:
        """What an added object needs, as far as this host has it: nobody said that all that was added is used."""
        if path in self.done or self.tree.read(path, 4) != MAGIC:
            return
        self.done.add(path)
        missing: list[Dependency] = []
        try:
            found = self.libraries.resolve(path, missing)
        except (Invalid, NotFound) as e:
            self._note(f"{path}: packed without what it may need: {e}")
            return
        self._note_missing(missing)
        self._depend(path, found)

    def _note_missing(self, missing: list[Dependency]) -> None:
        for d in missing:
            self._note(f"{d.needed_by}: packed without {d.name}, which is not on this host")

    def _file(self, path: str, why: str) -> str:
        """Pack the way to a file and the file; returns its resolved path."""
        real = self._way(path, why)
        self._refuse_secret(path, real)
        self._entry(real, why)
        return real

    def _way(self, path: str, why: str) -> str:
        way = self.tree.walk(path)
        if any(map(_by_kernel, way.crossed)):
            raise Invalid(f"pack {path}", "the kernel makes /proc, /sys and /dev anew in each container")
        for each in way.crossed:
            if each != way.path:
                self._entry(each, why)
        if S_ISDIR(self._mode(way.path)):
            self._entry(way.path, why)
        return way.path

    def _entry(self, real: str, why: str) -> None:
        """One entry for a resolved path; its parents are already there."""
        name = real.strip("/")
        if not name or name in self.entries:
            return
        if os.path.basename(name).startswith(".wh."):
            raise Invalid(f"pack {real}", "in a layer, such a name means that a file is deleted")
        status = self.tree.lstat(real)
        mode = S_IMODE(status.st_mode)
        if S_ISLNK(status.st_mode):
            entry = Entry(name, SYMLINK, 0o777, target=self.tree.readlink(real), why=why)
        elif S_ISDIR(status.st_mode):
            entry = Entry(name, DIRECTORY, _FOLDERS.get(name, mode & 0o1777), why=why)
        elif S_ISREG(status.st_mode):
            if not os.access(self.tree.root + real, os.R_OK):
                raise Error(f"pack {real}", errno.EACCES)
            entry = Entry(name, FILE, mode & 0o777, source=real, size=status.st_size, why=why)
            if status.st_nlink > 1:
                self.same.setdefault((status.st_dev, status.st_ino), []).append(name)
        else:
            raise _unfit(real, status.st_mode)
        self.entries[name] = entry

    def _mode(self, path: str) -> int:
        return self.tree.lstat(self.tree.walk(path).path).st_mode

    def _identity(self, real: str) -> tuple[int, int]:
        status = self.tree.lstat(real)
        return status.st_dev, status.st_ino

    def _secrets(self) -> set[tuple[int, int]]:
        """Hard links and bind mounts of the host's password files are those files, whatever their name."""
        ways = (self.tree.find(f"/etc/{name}") for name in ("shadow", "gshadow", "shadow-", "gshadow-"))
        return {self._identity(way.path) for way in ways if way is not None}

    def _is_secret(self, real: str) -> bool:
        return is_secret(real) or self._identity(real) in self.secrets

    def _refuse_secret(self, path: str, real: str) -> None:
        if self._is_secret(real):
            raise Invalid(f"pack {path}", "files of password hashes are never packed")

    def _note(self, text: str) -> None:
        self.notes[text] = True

    # The end

    def finish(self) -> Packing:
        """The base of every image, the files that loaders read, and hard links for files with several names."""
        for path in _MERGED:
            if (way := self.tree.find(path)) is not None and S_ISLNK(self.tree.lstat(path).st_mode):
                self._way(path, "the host's layout")
                self._entry(way.path, "the host's layout")
        for file, loader in self.libraries.loader_data.items():
            self._file(file, f"read by {loader}")
        for name, mode in _FOLDERS.items():
            self.entries.setdefault(name, Entry(name, DIRECTORY, mode, why="the base"))
        generated = {name: text.encode() for name, text in _FILES.items()}
        if cache := self.libraries.cache_for_image():
            generated["etc/ld.so.cache"] = cache
        for name, data in generated.items():
            self.entries.setdefault(name, Entry(name, FILE, 0o644, data=data, size=len(data), why="the base"))
        self._link_same()
        entries = sorted(self.entries.values(), key=lambda e: os.fsencode(e.path))
        return Packing(tuple(entries), tuple(dict.fromkeys(self.programs)), tuple(self.notes), self.facts)

    def _link_same(self) -> None:
        for names in self.same.values():
            first, *others = sorted(names, key=os.fsencode)
            for name in others:
                before = self.entries[name]
                self.entries[name] = Entry(name, HARDLINK, before.mode, target=first, why=before.why)


def _unfit(path: str, mode: int) -> Invalid:
    if S_ISREG(mode) or S_ISDIR(mode):
        return Invalid(f"pack {path}", "it is not an executable file")
    return Invalid(f"pack {path}", "sockets, pipes and devices are not packed")


def _by_kernel(path: str) -> bool:
    return path in _KERNEL or path.startswith(tuple(f"{k}/" for k in _KERNEL))


def _asked_of_env(argument: str) -> str:
    """The program that `env ARGUMENT` runs. It is one word, as the kernel gives it: only -S makes env(1) split it."""
    for flag in ("--split-string=", "--split-string ", "-S", "-vS"):
        if argument.startswith(flag):
            words = argument.removeprefix(flag).split()
            return next((w for w in words if not w.startswith("-") and "=" not in w), "")
    return argument


def _kernel_folders() -> frozenset[str]:
    """Where the kernel's own file systems are mounted (proc(5): field 5 is the path, the type comes after "-")."""
    with open("/proc/self/mountinfo", "rb") as file:
        rows = [line.split(b" ") for line in file]
    points = (row[4] for row in rows if row[row.index(b"-") + 1] in _KERNEL_TYPES)
    return frozenset(os.fsdecode(p.decode("unicode_escape").encode("latin-1")) for p in points)  # blanks are \\040
