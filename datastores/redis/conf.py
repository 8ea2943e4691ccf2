"""The server's configuration file: writing it, and reading it as the server does.

A line is words; a word in double quotes may hold ``\\n \\r \\t \\b \\a \\" \\\\`` and ``\\xHH``, one in
single quotes only ``\\'``; a line that begins with ``#`` is a comment.  Newer and older names of one
setting (``SYNONYMS``) are one setting here: the last one that was set wins.
"""

from collections.abc import Iterator, Mapping, Sequence

from datastores.contract import BadInput, Mismatch

FILE = "redis.conf"

SYNONYMS: Mapping[str, str] = {
    "slave-serve-stale-data": "replica-serve-stale-data",
    "slave-read-only": "replica-read-only",
    "repl-ping-slave-period": "repl-ping-replica-period",
    "slave-priority": "replica-priority",
    "min-slaves-to-write": "min-replicas-to-write",
    "min-slaves-max-lag": "min-replicas-max-lag",
    "cluster-slave-validity-factor": "cluster-replica-validity-factor",
    "hash-max-listpack-entries": "hash-max-ziplist-entries",
    "hash-max-listpack-value": "hash-max-ziplist-value",
    "zset-max-listpack-entries": "zset-max-ziplist-entries",
    "zset-max-listpack-value": "zset-max-ziplist-value",
    "list-max-listpack-size": "list-max-ziplist-size",
    "busy-reply-threshold": "lua-time-limit",
}

_LISTS = {"save": 2, "client-output-buffer-limit": 4}
_WORDS = ("bind",)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "a": "\a"}
_SHOWN = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\a": "\\a", '"': '\\"', "\\": "\\\\"}


def quote(value: str) -> str:
    """Return one word of the file that the server reads as ``value``; ``BadInput`` where none could be."""
    if "\0" in value:
        raise BadInput("a setting's value may not hold NUL")
    return '"' + "".join(_SHOWN.get(each) or _byte(each) for each in value) + '"'


def _byte(character: str) -> str:
    return character if character.isprintable() else "".join(f"\\x{each:02x}" for each in character.encode())


class RedisConf:
    """Keep ``contract.Codec``: one file, one directive a line, in the order of the names."""

    def dump(self, layers: Sequence[Mapping[str, str]]) -> dict[str, bytes]:
        """Return the files of one generation by name; later layers win."""
        merged: dict[str, str] = {}
        for layer in layers:
            merged.update({SYNONYMS.get(name, name): value for name, value in layer.items()})
        lines = [line for name in sorted(merged) for line in _directives(name, merged[name])]
        return {FILE: "".join(f"{each}\n" for each in lines).encode()}


def _directives(name: str, value: str) -> Iterator[str]:
    """Yield the lines of one setting; some take several words, some a line for each group of words."""
    words = value.split()
    if name in _LISTS and words:
        size = _LISTS[name]
        for start in range(0, len(words), size):
            yield " ".join([name, *(quote(each) for each in words[start : start + size])])
    elif name in _WORDS:
        yield " ".join([name, *(quote(each) for each in words)])
    else:
        yield f"{name} {quote(value)}"


def read(data: bytes) -> dict[str, str]:
    """Return what the server would read: settings by name, groups of words joined in their order."""
    found: dict[str, str] = {}
    for number, text in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), 1):
        stripped = text.strip(" \t\r\n")
        if not stripped or stripped.startswith("#"):
            continue
        name, *words = split(stripped, number)
        name, value = name.lower(), " ".join(words)
        name = SYNONYMS.get(name, name)
        found[name] = f"{found[name]} {value}" if name in _LISTS and found.get(name) else value
    return found


def split(text: str, number: int = 1) -> list[str]:
    """Return the words of one line as the server splits it; ``Mismatch`` where its quotes do not match."""
    words, at = [], 0
    while at < len(text):
        if text[at] in " \t\r\n\v\f":
            at += 1
            continue
        word, at = _word(text, at, number)
        words.append(word)
    return words


def _word(text: str, at: int, number: int) -> tuple[str, int]:
    out: list[str] = []
    while at < len(text) and text[at] not in " \t\r\n\v\f":
        if text[at] in "\"'":
            at = _quoted(text, at, out)
            if at < 0 or (at < len(text) and text[at] not in " \t\r\n\v\f"):
                raise Mismatch(f"line {number} of the configuration file has quotes that do not match")
            break
        out.append(text[at])
        at += 1
    return _joined(out), at


def _quoted(text: str, at: int, out: list[str]) -> int:
    """Take one quoted word into ``out``; return where it ends, or -1."""
    mark, at = text[at], at + 1
    while at < len(text):
        here = text[at]
        if here == mark:
            return at + 1
        if here == "\\" and at + 1 < len(text):
            after = text[at + 1]
            if mark == '"' and after == "x" and _hex(text[at + 2 : at + 4]):
                out.append(chr(0xDC00 + int(text[at + 2 : at + 4], 16)))
                at += 4
                continue
            if mark == '"':
                out.append(_ESCAPES.get(after, after))
                at += 2
                continue
            if after == "'":
                out.append(after)
                at += 2
                continue
        out.append(here)
        at += 1
    return -1


def _hex(digits: str) -> bool:
    return len(digits) == 2 and all(each in "0123456789abcdefABCDEF" for each in digits)


def _joined(out: list[str]) -> str:
    """Put characters, and bytes that were written as ``\\xHH``, together."""
    parts = (
        bytes([ord(each) - 0xDC00]) if 0xDC00 <= ord(each) <= 0xDCFF else each.encode("utf-8", "surrogatepass")
        for each in out
    )
    return b"".join(parts).decode("utf-8", "surrogateescape")
