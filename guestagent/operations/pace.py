"""Limits of an operation: bytes per second, threads, niceness."""

import os
import threading
import time

from datastores.contract import Limits
from guestagent.errors import Refused

_BURST = 0.25


class Pace:
    """A bucket of time: say how long to wait so that no more than ``bandwidth`` bytes pass in a second; 0: no limit."""

    def __init__(self, bandwidth: int) -> None:
        self._bandwidth = bandwidth
        self._free = time.monotonic()

    def owed(self, size: int) -> float:
        """Return the seconds to wait after ``size`` bytes have passed."""
        if self._bandwidth == 0:
            return 0.0
        present = time.monotonic()
        self._free = max(self._free, present - _BURST) + size / self._bandwidth
        return max(0.0, self._free - present)


def limits(bandwidth: int, workers: int, nice: int) -> Limits:
    """Return the limits, or raise ``Refused`` that names the one that cannot be."""
    if bandwidth < 0:
        raise Refused("bandwidth is bytes per second; 0 is no limit", field="bandwidth")
    if not 1 <= workers <= 64:
        raise Refused("workers must be 1 to 64", field="workers")
    if not 0 <= nice <= 19:
        raise Refused("nice must be 0 to 19", field="nice")
    return Limits(bandwidth, workers, nice)


def be_nice(nice: int) -> None:
    """Lower the priority of this thread, and of those it starts."""
    if nice:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
