"""Kill points: with ``OSTLER_TEST=1`` the agent kills itself at a step, to show that it survives that."""

import os
import signal
from collections import Counter
from collections.abc import Mapping

ALIASES: Mapping[str, tuple[str, ...]] = {
    "prepare": ("agent.prepare",),
    "backup": ("backup.create",),
    "restore": ("backup.restore",),
    "settings": ("settings.set", "settings.drop"),
}
"""The short names of verbs that have kill points of their own."""

_reached: Counter[str] = Counter()


def verbs_meant(name: str) -> tuple[str, ...]:
    """Return the verbs that a short name, or ``noun.verb``, ``noun verb``, stands for."""
    return ALIASES.get(name, (name.replace(" ", ".").replace("-", "_"),))


def point(verb: str, step: str, side: str) -> None:
    """Kill this process with SIGKILL where ``OSTLER_KILL_AT=verb:step:before|after[:n]`` says so."""
    wanted = os.environ.get("OSTLER_KILL_AT", "") if os.environ.get("OSTLER_TEST") == "1" else ""
    if not wanted:
        return
    name, _, rest = wanted.partition(":")
    place, _, count = rest.partition(":")[0], None, rest.split(":")[2:]
    if verb not in verbs_meant(name) or place != step or rest.split(":")[1:2] != [side]:
        return
    _reached[wanted] += 1
    if _reached[wanted] == int(count[0] if count else 1):
        os.kill(os.getpid(), signal.SIGKILL)
