"""A store with its two processes, to be killed: what must be as before when nothing runs, and kills at every moment."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import leftovers
from cloche.engine.containers import Engine
from cloche.sdk import Client
from commands import ok
from stepping import Killer, killed_at


class House:
    """A store with its two processes, and what must be as before when nothing runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.client = Client(str(root))
        self.engine: Engine = self.client.engine
        self.client.run("starter", "true", remove=True)
        self.held = self.descriptors()

    def pids(self) -> tuple[int, int]:
        """Holder and keeper that answer; not while a death has not been noticed."""
        while True:
            answer, _ = self.engine.keeper.ask({"op": "info"})
            try:
                if str(self.root).encode() in Path(f"/proc/{answer['holder']}/cmdline").read_bytes():
                    return answer["holder"], answer["keeper"]
            except (FileNotFoundError, ProcessLookupError):
                continue

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pids()[0]}/fd"))

    def end(self) -> None:
        """Both are gone when this returns."""
        holder = os.pidfd_open(self.pids()[0])
        self.engine.keeper.ask({"op": "end"})
        assert select.select([holder], [], [], 10)[0]
        os.close(holder)

    def left(self) -> list[str]:
        """What should not be there when no container is."""
        holder, keeper = self.pids()
        run, found = Path(self.engine.store.run), []
        found += [f"plan {name}" for name in os.listdir(run / "plans")]
        found += [f"directory {name}" for name in os.listdir(self.root / "containers")]
        found += [f"group {path}" for path in leftovers.cgroups(leftovers.marks(self.root)) if path[-65:-64] == "/"]
        found += [f"child {pid} of the holder" for pid in children(holder) if pid != keeper and not stays(pid)]
        found += [f"child {pid} of the keeper" for pid in children(keeper) if not stays(pid)]
        count = self.descriptors()
        found += [f"{count} descriptors in the holder, not {self.held}"] if count > self.held else []
        found += [f"row {row['id']}" for row in self.engine.db.execute("SELECT id FROM containers")]
        return found

    def nothing_left(self) -> None:
        """The holder hears of an end a moment after the client."""
        deadline = time.monotonic() + 5
        while (found := self.left()) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not found, found


def stays(pid: int) -> bool:
    """Whether a process lives as long as the keeper does: the responder, the bell that makes the others."""
    process = Path(f"/proc/{pid}")
    return b"/responder.py\0" in (process / "cmdline").read_bytes() or (process / "comm").read_text() == "bell-server\n"


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def responders(store: Path) -> list[int]:
    """The processes that answer for names on the networks of a store."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0") if entry.isdigit() else []
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.fsencode(store) in words and any(word.endswith(b"/responder.py") for word in words):
            found.append(int(entry))
    return found


def kill_processes(who: str) -> None:
    """Kill a store's keeper, holder, or both, as far as they are there: `info` says 0 where none is, and kill(2) takes
    0 for the caller's own group."""
    facts = json.loads(ok("info", "-f", "json"))
    for key in ("KeeperPid", "HolderPid") if who == "both" else (f"{who.title()}Pid",):
        with suppress(ProcessLookupError):
            if facts[key]:
                os.kill(facts[key], signal.SIGKILL)


@contextmanager
def killing(house: House, which: int, stop: int) -> Iterator[Killer]:
    """One that is being killed by the turn before cannot be traced: then its successor."""
    while True:
        with ExitStack() as stack:
            try:
                killer = stack.enter_context(killed_at(house.pids()[which], stop))
            except ProcessLookupError:
                continue
            yield killer
            return


def stops(way: Callable[[House], None], house: House, which: int) -> int:
    """About how many stops the process makes on this way, by halving."""
    most = 1
    while True:
        with killing(house, which, most) as killer:
            way(house)
        if not killer.done:
            return most
        most *= 2


def step_through(way: Callable[[House], None], house: House, which: int, kills: int) -> None:
    """Kill the process on this way at evenly spread stops."""
    total = stops(way, house, which)
    shift = random.random()
    for turn in range(kills):
        at = 1 + int((turn + shift) * total / kills)
        with killing(house, which, at) as killer:
            try:
                way(house)
            except BaseException as problem:
                problem.add_note(f"{'holder' if which == 0 else 'keeper'} killed at stop {at} of {total}")
                raise
        if not killer.done:
            break
