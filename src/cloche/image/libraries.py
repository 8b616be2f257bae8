"""The shared libraries that a program needs, found where its loader would find them, without running anything.

`resolve()` follows DT_NEEDED breadth first as glibc's and musl's loaders do. Not looked at: LD_LIBRARY_PATH and
ld.so.preload (settings of a session, not of a program) and glibc-hwcaps folders (an image runs on other CPUs too; the
plain library is always there as well). Source: ld.so(8), glibc elf/dl-load.c, musl ldso/dynlink.c.
"""

from __future__ import annotations

import os
from collections import deque
from stat import S_ISREG
from typing import TYPE_CHECKING

from cloche.errors import Invalid, NotFound
from cloche.image import elf
from cloche.image.elf import Elf
from cloche.image.ldcache import CacheEntry, format_cache, read_cache, read_conf, read_musl_path
from cloche.image.tree import Tree
from cloche.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# By machine and class: AT_PLATFORM, Debian's folder name, glibc's usual loader, the flags of ld.so.cache.
_MACHINES = {
    (elf.EM_X86_64, 64): ("x86_64", "x86_64-linux-gnu", "/lib64/ld-linux-x86-64.so.2", 0x303),
    (elf.EM_X86_64, 32): ("x86_64", "x86_64-linux-gnux32", "/libx32/ld-linux-x32.so.2", 0x803),
    (elf.EM_386, 32): ("i686", "i386-linux-gnu", "/lib/ld-linux.so.2", 0x003),
    (elf.EM_AARCH64, 64): ("aarch64", "aarch64-linux-gnu", "/lib/ld-linux-aarch64.so.1", 0xA03),
    (elf.EM_ARM, 32): ("v7l", "arm-linux-gnueabihf", "/lib/ld-linux-armhf.so.3", 0x903),
    (elf.EM_PPC64, 64): ("powerpc64le", "powerpc64le-linux-gnu", "/lib64/ld64.so.2", 0x503),
    (elf.EM_S390, 64): ("s390x", "s390x-linux-gnu", "/lib/ld64.so.1", 0x403),
    (elf.EM_RISCV, 64): ("riscv64", "riscv64-linux-gnu", "/lib/ld-linux-riscv64-lp64d.so.1", 0x1003),
    (elf.EM_LOONGARCH, 64): ("loongarch64", "loongarch64-linux-gnu", "/lib64/ld-linux-loongarch-lp64d.so.1", 0x1103),
}
_LOADER_MAX = 16 << 20
_MUSL_OWN = ("c", "pthread", "rt", "m", "dl", "util", "xnet")  # dynlink.c: these names are the loader itself


class Dependency(Value):
    """A file that a program needs: `name` as it is asked for, `path` where the loader opens it, `needed_by` an object,
    `found` by which rule: interpreter, path, rpath, runpath, cache, conf, default."""

    name: str
    path: str
    needed_by: str
    found: str


def resolve(program: str, root: str = "/") -> tuple[Dependency, ...]:
    """The loader and all libraries that the file `program` (absolute) needs, in loading order.

    Raises NotFound (a library that is nowhere, and who needs it), Invalid (malformed files), Error.
    """
    return Libraries(Tree(root)).resolve(program)


class _Loaded:
    """An object in the imagined process: where it was opened, who asked for it first, under which names it is known."""

    def __init__(self, path: str, facts: Elf, asked_by: _Loaded | None, origin: str, names: tuple[str, ...]) -> None:
        self.path, self.facts, self.asked_by, self.origin = path, facts, asked_by, origin
        self.names = {path, *names}


class Libraries:
    """A host's libraries. One of these serves many programs: what was read is remembered."""

    def __init__(self, tree: Tree | None = None) -> None:
        self.tree = tree or Tree()
        self.loader_data: dict[str, str] = {}  # files that a loader reads, and which loader
        self._files: dict[str, Elf] = {}
        self._loaders: dict[tuple[int, int], str] = {}
        self._folders: dict[str, tuple[str, ...]] = {}
        self._outside: dict[CacheEntry, Elf] = {}
        self._cache: dict[str, list[CacheEntry]] | None = None
        self._conf: tuple[str, ...] | None = None

    def facts(self, path: str) -> Elf:
        """What the ELF file that `path` leads to says of itself."""
        real = self.tree.walk(path).path
        found = self._files.get(real)
        if found is None:
            fd = self.tree.open(real)
            try:
                found = self._files[real] = elf.parse(fd, real)
            finally:
                os.close(fd)
        return found

    def strings(self, path: str) -> bytes:
        """The dynamic string table of the object that `path` leads to."""
        real = self.tree.walk(path).path
        fd = self.tree.open(real)
        try:
            return elf.strings(fd, self.facts(real), real)
        finally:
            os.close(fd)

    def resolve(
        self, program: str, missing: list[Dependency] | None = None, also: tuple[str, ...] = ()
    ) -> tuple[Dependency, ...]:
        """See `resolve()` above. `also`: libraries looked for as if the program named them too.

        With a list `missing`, libraries that are nowhere are put there and are no error.
        """
        facts = self.facts(program)
        main = _Loaded(program, facts, None, os.path.dirname(self.tree.walk(program).path), ())
        loaded, found = [main], []
        if facts.interpreter:
            found.append(self._interpreter(program, facts))
            real = self.facts(facts.interpreter)
            names = (os.path.basename(facts.interpreter), *filter(None, (real.soname,)))
            loaded.append(_Loaded(facts.interpreter, real, main, os.path.dirname(facts.interpreter), names))
        rules: type[_Rules] = _Musl if _is_musl(facts) else _Glibc
        loader = rules(self, facts, main)
        queue = deque([main])
        while queue:
            asking = queue.popleft()
            for name in (*asking.facts.needed, *(also if asking is main else ())):
                if loader.is_loaded(name, loaded):
                    continue
                dependency = self._find(loader, name, asking)
                if not dependency.path:
                    _refuse_or_note(dependency, missing, facts)
                    continue
                found.append(dependency)
                if (again := self._same_file(dependency.path, loaded)) is not None:
                    again.names |= {name, dependency.path}  # a second name of a file: must be there, is loaded once
                    continue
                new = self._load(name, dependency.path, asking)
                loaded.append(new)
                queue.append(new)
        return tuple(found)

    def _interpreter(self, program: str, facts: Elf) -> Dependency:
        name = facts.interpreter
        if not name.startswith("/"):
            raise Invalid(f"resolve the libraries of {program}", f"its loader {name!r} is not an absolute path")
        if not self._candidate(name, facts):
            raise NotFound(f"resolve the libraries of {program}", f"this host has no loader {name} for its machine")
        self._loaders.setdefault((facts.machine, facts.bits), name)
        return Dependency(name, name, program, "interpreter")

    def _load(self, name: str, path: str, asking: _Loaded) -> _Loaded:
        facts = self.facts(path)
        return _Loaded(path, facts, asking, os.path.dirname(path), (name, *filter(None, (facts.soname,))))

    def _find(self, loader: _Rules, name: str, asking: _Loaded) -> Dependency:
        """The library with the path "" if it is nowhere."""
        for how, path, entry in loader.places(name, asking):
            if self._candidate(path, asking.facts):
                if entry is not None and not path.startswith(tuple(f"{f}/" for f in loader.folders)):
                    self._outside[entry] = asking.facts
                return Dependency(name, path, asking.path, how)
        return Dependency(name, "", asking.path, "")

    def _candidate(self, path: str, like: Elf) -> bool:
        way = self.tree.find(path)
        if way is None or not S_ISREG(self.tree.lstat(way.path).st_mode):
            return False
        return self.facts(path).fits(like)

    def _same_file(self, path: str, loaded: list[_Loaded]) -> _Loaded | None:
        def identity(of: str) -> tuple[int, int]:
            status = self.tree.lstat(self.tree.walk(of).path)
            return status.st_dev, status.st_ino

        wanted = identity(path)
        return next((o for o in loaded if identity(o.path) == wanted), None)

    def loader_of(self, facts: Elf) -> str:
        """The loader of an object: its own, or for a library the one that programs of its machine have."""
        key = facts.machine, facts.bits
        return facts.interpreter or self._loaders.get(key) or _MACHINES.get(key, ("", "", "", 0))[2]

    def folders_of(self, facts: Elf) -> tuple[str, ...]:
        """The folders built into glibc's loader for such an object, read from the loader itself."""
        loader = self.loader_of(facts)
        folders = self._folders.get(loader)
        if folders is None:
            try:
                folders = _built_in_folders(self.tree.read(loader, _LOADER_MAX)) if loader else ()
            except NotFound:
                folders = ()
            self._folders[loader] = folders = folders or _usual_folders(facts)
        return folders

    def cached(self, name: str) -> list[CacheEntry] | None:
        """The lines of ld.so.cache for a name, none for special CPUs; None where there is no cache."""
        if self._conf is None:
            self._cache = read_cache(self.tree)
            self._conf = read_conf(self.tree) if self._cache is None else ()
        return None if self._cache is None else [e for e in self._cache.get(name, ()) if e.hwcap == 0]

    @property
    def conf(self) -> tuple[str, ...]:
        """The folders of ld.so.conf, where there is no cache."""
        self.cached("")
        return self._conf or ()

    def cache_for_image(self) -> bytes:
        """An ld.so.cache of those libraries found so far that only a cache leads to; empty if there are none."""
        little = next((facts.little for facts in self._outside.values()), True)
        return format_cache(self._outside, little) if self._outside else b""


def _is_musl(facts: Elf) -> bool:
    if facts.interpreter:
        return os.path.basename(facts.interpreter).startswith("ld-musl-")
    return any(n == "libc.so" or n.startswith("libc.musl-") for n in facts.needed)


def _refuse_or_note(dependency: Dependency, missing: list[Dependency] | None, facts: Elf) -> None:
    if missing is not None:
        missing.append(dependency)
        return
    raise NotFound(
        f"find library {dependency.name} for {dependency.needed_by}",
        f"there is no {facts.bits}-bit library of that name for its machine where its loader would look",
        "install the package that has it, or run ldconfig",
    )


class _Rules:
    """How one kind of loader looks for a library."""

    folders: tuple[str, ...]  # built in

    def __init__(self, libraries: Libraries, facts: Elf, main: _Loaded) -> None:
        self.libraries, self.main = libraries, main

    def is_loaded(self, name: str, loaded: list[_Loaded]) -> bool:
        raise NotImplementedError

    def places(self, name: str, asking: _Loaded) -> Iterator[tuple[str, str, CacheEntry | None]]:
        """Rule, path and, where only ld.so.cache leads there, the line for it: in the loader's order."""
        raise NotImplementedError


class _Glibc(_Rules):
    def __init__(self, libraries: Libraries, facts: Elf, main: _Loaded) -> None:
        super().__init__(libraries, facts, main)
        self.folders = libraries.folders_of(facts)
        platform, _, _, self.flags = _MACHINES.get((facts.machine, facts.bits), (os.uname().machine, "", "", 3))
        # DL_DST_LIB is the first built-in folder without its prefix: lib/x86_64-linux-gnu, lib64, lib
        first = self.folders[0].removeprefix("/usr").strip("/")
        self.tokens = {"LIB": first if first.startswith("lib") else "lib", "PLATFORM": platform}

    def is_loaded(self, name: str, loaded: list[_Loaded]) -> bool:
        return any(name in o.names for o in loaded)

    def places(self, name: str, asking: _Loaded) -> Iterator[tuple[str, str, CacheEntry | None]]:
        if "/" in name:
            path = self._expand(name, asking)
            if path.startswith("/"):
                yield "path", path, None
            return
        if asking.facts.runpath is None:
            by: _Loaded | None = asking
            while by is not None:
                if by.facts.runpath is None:
                    yield from self._in_list("rpath", by.facts.rpath, by, name)
                by = by.asked_by
        yield from self._in_list("runpath", asking.facts.runpath, asking, name)
        built_in = tuple(f"{f}/" for f in self.folders) if asking.facts.nodeflib else ()
        for entry in self._from_cache_or_conf(name):
            if not built_in or not entry.path.startswith(built_in):
                yield ("conf" if self.libraries.conf else "cache"), entry.path, entry
        if not built_in:
            for folder in self.folders:
                yield "default", f"{folder}/{name}", None

    def _from_cache_or_conf(self, name: str) -> list[CacheEntry]:
        cached = self.libraries.cached(name)
        if cached is not None:
            return cached
        return [CacheEntry(name, f"{folder}/{name}", self.flags) for folder in self.libraries.conf]

    def _in_list(
        self, how: str, folders: str | None, of: _Loaded, name: str
    ) -> Iterator[tuple[str, str, CacheEntry | None]]:
        for folder in (folders or "").split(":"):
            path = self._expand(folder, of)
            if path.startswith("/"):  # "" and relative ones mean the working directory: no property of an image
                yield how, f"{path.rstrip('/')}/{name}", None

    def _expand(self, text: str, of: _Loaded) -> str:
        return _expand(text, lambda token: of.origin if token == "ORIGIN" else self.tokens.get(token))


class _Musl(_Rules):
    def __init__(self, libraries: Libraries, facts: Elf, main: _Loaded) -> None:
        super().__init__(libraries, facts, main)
        loader = facts.interpreter
        arch = os.path.basename(loader).removeprefix("ld-musl-").partition(".so")[0]
        if not loader:
            platform = _MACHINES.get((facts.machine, facts.bits), (os.uname().machine, "", "", 0))[0]
            arch = {"i686": "i386", "v7l": "armhf"}.get(platform, platform)
            loader = f"/lib/ld-musl-{arch}.so.1"
        file, self.folders = read_musl_path(libraries.tree, loader, arch)
        if file:
            libraries.loader_data[file] = loader

    def is_loaded(self, name: str, loaded: list[_Loaded]) -> bool:
        if name.startswith("lib") and name[3:].partition(".")[0] in _MUSL_OWN and "." in name:
            return not name.startswith("libc.musl-") or self._no_such_file(name)
        return any(name in o.names - {o.facts.soname} for o in loaded)

    def _no_such_file(self, name: str) -> bool:
        """libc.musl-ARCH.so.1 is the loader too, and never opened; but tools look for the link, so it goes along."""
        return not any(self.libraries.tree.find(f"{folder}/{name}") for folder in self.folders)

    def places(self, name: str, asking: _Loaded) -> Iterator[tuple[str, str, CacheEntry | None]]:
        if "/" in name:
            if name.startswith("/"):
                yield "path", name, None
            return
        by: _Loaded | None = asking
        while by is not None:
            how, folders = ("rpath", by.facts.rpath) if by.facts.runpath is None else ("runpath", by.facts.runpath)
            for folder in self._expand(folders or "", by).split(":"):
                if folder.startswith("/"):
                    yield how, f"{folder}/{name}", None
            by = by.asked_by
        for folder in self.folders:
            yield "default", f"{folder}/{name}", None

    @staticmethod
    def _expand(text: str, of: _Loaded) -> str:
        """dynlink.c, fixup_rpath(): any other token than $ORIGIN makes the whole list void."""
        done = text.replace("${ORIGIN}", of.origin).replace("$ORIGIN", of.origin)
        return "" if "$" in done.replace(of.origin, "") else done


def _expand(text: str, value_of: Callable[[str], str | None]) -> str:
    """Put in the loader's tokens, $NAME or ${NAME}; what is no token stays as it is (ld.so(8))."""
    head, *rest = text.split("$")
    parts = [head]
    for piece in rest:
        braced = piece.startswith("{")
        end = piece.find("}") if braced else next((i for i, c in enumerate(piece) if not _in_name(c)), len(piece))
        name, after = (piece[1:end], piece[end + 1 :]) if braced else (piece[:end], piece[end:])
        value = value_of(name) if end >= 0 else None
        parts.append(f"${piece}" if value is None else value + after)
    return "".join(parts)


def _in_name(c: str) -> bool:
    return c == "_" or (c.isascii() and c.isalnum())


def _built_in_folders(loader: bytes) -> tuple[str, ...]:
    """system_dirs[] of glibc's loader: absolute folders of libraries, each ended by a slash and a zero byte."""
    import re

    for match in re.finditer(rb"(?:/[!-~]{0,200}/\0){1,16}", loader):
        folders = match[0].decode().rstrip("\0").split("\0")
        if all(any(part.startswith("lib") for part in f.split("/")) for f in folders):
            return tuple(f.rstrip("/") for f in folders)
    return ()


def _usual_folders(facts: Elf) -> tuple[str, ...]:
    triple = _MACHINES.get((facts.machine, facts.bits), ("", "", "", 0))[1]
    multiarch = [f"/lib/{triple}", f"/usr/lib/{triple}"] if triple else []
    wide = ["/lib64", "/usr/lib64"] if facts.bits == 64 else []
    return (*multiarch, *wide, "/lib", "/usr/lib")
