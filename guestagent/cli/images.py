"""What an image builder and a puzzled operator ask of an image description."""

import argparse
from collections.abc import Mapping, Sequence

from cliff.command import Command

from guestagent import image
from guestagent.cli.show import Lines
from guestagent.errors import ImageMismatch


class Packages(Lines):
    """Print the packages a datastore needs, one a line."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = _image(super().get_parser(prog_name))
        parser.add_argument("datastore", metavar="DATASTORE")
        return parser

    def found(self, parsed: argparse.Namespace) -> Sequence[str]:
        return image.packages(parsed.image, parsed.datastore, parsed.version)


class Check(Lines):
    """Check this machine against its image description; one line for each thing."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = _image(super().get_parser(prog_name))
        parser.add_argument("datastore", metavar="DATASTORE", nargs="?", help="only this one")
        parser.add_argument("--prefix", metavar="DIR", help="look for tools and libraries below this folder first")
        return parser

    def found(self, parsed: argparse.Namespace) -> Sequence[Mapping[str, object]]:
        rows = image.checks(parsed.image, datastore=parsed.datastore, version=parsed.version, prefix=parsed.prefix)
        self.failed = [name for name, fault in rows if fault]
        return [{"name": name, "ok": not fault, "fault": fault or None} for name, fault in rows]

    def line(self, each: Mapping[str, object]) -> str:
        fault = f": {each['fault']}" if each["fault"] else ""
        return f"{'OK' if each['ok'] else 'FAILED':7}{each['name']}{fault}"

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        super().take_action(parsed_args)
        if self.failed:
            raise ImageMismatch(f"{len(self.failed)} of this machine's things are not as the image says")
        return 0


def _image(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--image", default="debian-12", metavar="NAME|FILE", help="default: debian-12")
    parser.add_argument("--version", metavar="V", help="of the datastore; default: all of the image's")
    return parser


def commands() -> dict[str, type[Command]]:
    """Return this room's commands by name."""
    return {"image packages": Packages, "image check": Check}
