"""The main job on real servers, told step by step: ``make demo``.

Real agent processes over ``unix://``, backups in a store federated over two directories; every step is an ``ostler``
command as an operator would type it.  Nothing is left behind, neither a process nor a file, also after Ctrl-C.
"""

import argparse
import sys
from pathlib import Path

from demo_show import Show
from demo_site import Broken, Patience, Site
from demo_story import tell
from table import ours

from guestagent import declarations


def main() -> int:
    """Tell the story for each datastore; 0 only when every step held."""
    options = _options()
    show, patience = Show(), Patience()
    patience.install()
    site = Site(options.prefix, patience)
    ok = False
    try:
        site.open()
        sizes = [options.size, *[options.others] * len(options.datastores)]
        for name, size in zip(options.datastores, sizes, strict=False):
            tell(site, show, name, size * 1_000_000)
        ok = True
    except Broken as error:
        show.console.print(f"\n{error}", style="red", markup=False)
    except KeyboardInterrupt:
        show.console.print("\ninterrupted: ending what was started", markup=False)
        return 130
    finally:
        site.close()
    show.table()
    if options.json:
        show.record(options.json, ok)
    show.console.print(f"{'Every step held' if ok else 'NOT every step held'}; nothing was left behind.", markup=False)
    return 0 if ok else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("datastores", nargs="*", help="which (default: all of this project's own)")
    parser.add_argument("--prefix", default="", help="what tools/servers printed")
    parser.add_argument("--size", type=int, default=100, help="MB of sample data in the first (%(default)s)")
    parser.add_argument("--others", type=int, default=30, help="MB of sample data in the others (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    options = parser.parse_args()
    known = list(declarations.installed())
    options.datastores = options.datastores or [each.name for each in ours()]
    for name in options.datastores:
        if name not in known:
            parser.error(f"there is no datastore {name!r}; installed: {', '.join(known)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
