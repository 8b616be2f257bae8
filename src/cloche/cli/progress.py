"""What a pull and a push show: on a terminal a line a layer, redrawn with a bar; elsewhere a line for each thing that
is done."""

from __future__ import annotations

import os
import sys
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.image.pull import Progress

WORDS = {
    "waiting": "Waiting",
    "downloading": "Downloading",
    "downloaded": "Download complete",
    "unpacking": "Extracting",
    "done": "Pull complete",
    "there": "Already exists",
    "preparing": "Preparing",
    "uploading": "Pushing",
    "pushed": "Pushed",
    "mounted": "Mounted from another repository",
    "exists": "Layer already exists",
}
_LAST = ("there", "done", "pushed", "mounted", "exists")
_MOVING = ("downloading", "uploading")
_PLAIN = ("downloaded", *_LAST)  # said where nothing can be redrawn
_EVERY = 0.1  # seconds between two drawings
_BAR = 30


class Display:
    """Takes what several threads tell."""

    def __init__(self, quiet: bool = False) -> None:
        from threading import Lock

        self._lock = Lock()
        self._quiet = quiet
        self._terminal = not quiet and sys.stdout.isatty()
        self._layers: dict[str, Progress] = {}
        self._drawn = 0
        self._last = 0.0

    def tell(self, progress: Progress) -> None:
        """One step of one layer."""
        if self._quiet:
            return
        with self._lock:
            known = self._layers.get(progress.digest)
            if known and known.state in _LAST:
                return  # the same layer twice in one image
            self._layers[progress.digest] = progress
            if self._terminal:
                if progress.state not in _MOVING or monotonic() - self._last > _EVERY:
                    self._draw()
            elif progress.state in _PLAIN:
                print(f"{progress.digest[7:19]}: {WORDS[progress.state]}", flush=True)

    def end(self) -> None:
        """The last drawing."""
        if self._terminal:
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        self._last = monotonic()
        rows, columns = _size()
        shown = list(self._layers.values())[-(rows - 1) :]  # what has scrolled away cannot be redrawn
        text = f"\033[{self._drawn}A" if self._drawn else ""
        for progress in shown:
            text += f"\r\033[2K{_line(progress)[: columns - 1]}\n"
        self._drawn = len(shown)
        sys.stdout.write(text)
        sys.stdout.flush()


def _size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return 24, 80
    return max(size.lines, 2), max(size.columns, 20)


def _line(progress: Progress) -> str:
    from cloche.engine.units import human_size

    start = f"{progress.digest[7:19]}: {WORDS[progress.state]}"
    if progress.state not in _MOVING:
        return start
    done = _BAR * progress.now // progress.total if progress.total else _BAR
    bar = "=" * done + ">" + " " * (_BAR - done)
    return f"{start} [{bar}] {human_size(progress.now)}/{human_size(progress.total)}"
