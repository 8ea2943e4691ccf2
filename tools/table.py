"""Write the table of capabilities into README.md, read from the declarations; ``make table``.

``python tools/table.py [--check]``: with ``--check`` nothing is written, and it fails where README.md says otherwise.
"""

import sys
from pathlib import Path

from datastores.contract import Datastore
from guestagent.declarations import Verb, installed, load, verbs

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- capabilities: made by `make table` -->", "<!-- end of capabilities -->"


def main(words: list[str]) -> int:
    """Write the table, or check it."""
    text = README.read_text()
    wanted = filled(text)
    if "--check" in words:
        return 0 if text == wanted else 1
    README.write_text(wanted)
    return 0


def filled(text: str) -> str:
    """Return the text with the table between its two marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}{END}{rest.split(END)[1]}"


def ours() -> list[Datastore]:
    """Return the datastores that this project brings itself."""
    return [load(name) for name, entry in installed().items() if entry.dist is None or entry.dist.name == "ostler"]


def table() -> str:
    """Return the table: what each datastore is, which parts it has, and the commands they answer."""
    stores, known = ours(), verbs().values()
    lines = [row("", "Commands", *(f"**{each.name}**" for each in stores)), row(*["---"] * (2 + len(stores)))]
    lines.append(row("versions", "", *(", ".join(each.versions) for each in stores)))
    lines.append(row("level", "", *(each.level for each in stores)))
    for part in Datastore.PARTS:
        served = [each for each in known if each.part == part]
        has = ("yes" if each.parts()[part] else "no" for each in stores)
        lines.append(row(part, ", ".join(f"`{command(each)}`" for each in served), *has))
    return "\n".join(lines) + "\n"


def row(*cells: str) -> str:
    """Return one line of the table."""
    return "| " + " | ".join(cells) + " |"


def command(verb: Verb) -> str:
    """Return a verb as it is typed."""
    return f"{verb.noun} {verb.name.replace('_', '-')}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
