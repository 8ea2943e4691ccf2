"""Values of settings: their kinds, and the one spelling in which they are kept and compared."""

import re

from datastores.contract import BadInput, Rule

_UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3}
_SIZE = re.compile(r"([0-9]{1,19})([a-zA-Z]{0,2})")
_NUMBER = re.compile(r"-?[0-9]{1,19}")
_EVENTS = "g$lshzxetd"
_EVENT_ORDER = "Ag$lshzxetdKEmn"
_CLASSES = ("normal", "replica", "pubsub")
_BUFFERS = {"normal": "0 0 0", "replica": "268435456 67108864 60", "pubsub": "33554432 8388608 60"}


def canonical(rule: Rule, value: str) -> str:
    """Return ``value`` in the server's spelling; ``BadInput`` names the setting and its rule."""
    if any(ord(each) < 32 or ord(each) == 127 for each in value):
        raise _bad(rule, "control characters and line ends are not allowed")
    return _KINDS[rule.kind](rule, value.strip())


def _boolean(rule: Rule, value: str) -> str:
    if value.lower() not in ("yes", "no"):
        raise _bad(rule, "it must be yes or no")
    return value.lower()


def _enum(rule: Rule, value: str) -> str:
    if value.lower() not in rule.choices:
        raise _bad(rule, f"it must be one of {', '.join(rule.choices)}")
    return value.lower()


def _integer(rule: Rule, value: str) -> str:
    if not _NUMBER.fullmatch(value):
        raise _bad(rule, "it must be a whole number")
    return _within(rule, int(value))


def _size(rule: Rule, value: str) -> str:
    return _within(rule, _bytes(rule, value))


def _bytes(rule: Rule, value: str) -> int:
    found = _SIZE.fullmatch(value)
    if found is None or found[2].lower() not in _UNITS:
        raise _bad(rule, "it must be bytes, or a number with k, kb, m, mb, g or gb")
    return int(found[1]) * _UNITS[found[2].lower()]


def _within(rule: Rule, number: int) -> str:
    if (rule.low is not None and number < rule.low) or (rule.high is not None and number > rule.high):
        raise _bad(rule, f"it must be {int(rule.low or 0)} to {int(rule.high or 0)}")
    return str(number)


def _events(rule: Rule, value: str) -> str:
    if any(each not in _EVENT_ORDER for each in value):
        raise _bad(rule, f"it must be of the letters {_EVENT_ORDER}")
    flags = set(value)
    if "A" in flags or flags.issuperset(_EVENTS):
        flags = (flags | {"A"}) - set(_EVENTS)
    return "".join(each for each in _EVENT_ORDER if each in flags)


def _buffers(rule: Rule, value: str) -> str:
    """Take up to three groups of four words; the classes that are not named keep the server's defaults."""
    words, limits = value.lower().split(), dict(_BUFFERS)
    if not words or len(words) % 4:
        raise _bad(rule, "it must be class, hard limit, soft limit and seconds, for up to three classes")
    for kind, hard, soft, seconds in zip(*[iter(words)] * 4, strict=True):
        name = "replica" if kind == "slave" else kind
        if name not in _CLASSES or not re.fullmatch(r"[0-9]{1,9}", seconds):
            raise _bad(rule, "a class is normal, replica or pubsub, and the last word is seconds")
        limits[name] = f"{_bytes(rule, hard)} {_bytes(rule, soft)} {int(seconds)}"
    return " ".join(f"{each} {limits[each]}" for each in _CLASSES)


def _bad(rule: Rule, why: str) -> BadInput:
    return BadInput(f"setting {rule.name} is refused: {why}", field=rule.name)


_KINDS = {
    "boolean": _boolean,
    "enum": _enum,
    "integer": _integer,
    "size": _size,
    "events": _events,
    "buffers": _buffers,
}
