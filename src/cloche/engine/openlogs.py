"""Which containers' logs are open: those that were written to last. A keeper has a limit of descriptors, and most of
thousands of containers say nothing; a log that rests is opened again by its next byte."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.runtime.log import LogWriter

MOST = 512


class OpenLogs:
    """The logs in the order of their last use."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._open: dict[LogWriter, None] = {}

    def use(self, log: LogWriter) -> None:
        """It is about to be written to; the one that was not for the longest time rests, when there are too many."""
        self._open.pop(log, None)
        self._open[log] = None
        if len(self._open) > self._most:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.close()

    def forget(self, log: LogWriter) -> None:
        """It is not written to any more."""
        self._open.pop(log, None)
