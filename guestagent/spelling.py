"""What a configuration file says that nobody would read: a misspelt name must not be a setting that silently is not."""

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches

from guestagent.errors import Refused

OURS, SHARED = "ostler", "DEFAULT"


def check(written: Mapping[str, Collection[str]], ours: Collection[str], shared: Collection[str]) -> list[str]:
    """Hold the names that stand in each section to those that are known in ``[ostler]`` and in ``[DEFAULT]``.

    ``Refused`` where a name is ours and stands wrong; ``[DEFAULT]`` is other people's, too, so what is strange there
    is returned in words.  Sections of others are left alone.
    """
    for section in written:
        if section.lower() != OURS and get_close_matches(section.lower(), [OURS], 1, 0.8):
            raise Refused(f"there is no section [{section}]", field=section, hint=f"did you mean [{OURS}]?")
    for name in _names(written, OURS):
        if name not in ours:
            raise Refused(f"[{OURS}] has no option {name}", field=name, hint=_near(name, ours, shared, SHARED))
    strange = [name for name in _names(written, SHARED) if name not in shared]
    for name in strange:
        if name in ours:
            raise Refused(f"[{SHARED}] has no option {name}", field=name, hint=f"it belongs into [{OURS}]")
    return [f"Nobody reads {name} in [{SHARED}]: {_near(name, shared, ours, OURS)}" for name in strange]


def _names(written: Mapping[str, Collection[str]], section: str) -> Iterator[str]:
    return (name for each, names in written.items() if each.lower() == section.lower() for name in names)


def _near(name: str, here: Collection[str], there: Collection[str], other: str) -> str:
    if name in there:
        return f"it belongs into [{other}]"
    near = get_close_matches(name, here, 1)
    return f"did you mean {near[0]}?" if near else "known are " + ", ".join(sorted(here))
