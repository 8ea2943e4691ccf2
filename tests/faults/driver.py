"""Run operations in processes that may be killed: each order is one fork of this one, which has loaded everything.

Reads orders as JSON lines from standard input, ``{"folder", "kill", "verb", "args", "request_id"}``, and answers each
with ``{"status", "told"}``: how the process ended, and, where it was not killed, its operations.  Without a verb it
only resumes.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from guestagent.declarations import verbs
from guestagent.operations.engine import Operations, Request
from tests.fakes_ops import sham_archive, sham_guest

PATIENCE = 60.0


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        told = Path(order["folder"]) / "told.json"
        told.unlink(missing_ok=True)
        number = os.fork()
        if number == 0:
            one_life(order, told)
        _, status = os.waitpid(number, 0)
        found = json.loads(told.read_text()) if told.exists() else None
        print(json.dumps({"status": os.waitstatus_to_exitcode(status), "told": found}), flush=True)


def one_life(order: dict[str, Any], told: Path) -> None:
    """Be an agent from its start to the end of all it has to do, or to its killing."""
    status = 1
    try:
        os.environ["OSTLER_TEST"] = "1"
        os.environ["OSTLER_KILL_AT"] = order["kill"] or ""
        folder = Path(order["folder"])
        guest = sham_guest(folder, "g1", sham_archive(folder.parent))
        engine = Operations(guest, verbs())
        engine.resume()
        for row in guest.journal.ledger.all(live=True):
            assert engine.wait(row.id, PATIENCE)
        if order["verb"]:
            operation = engine.accept(Request(order["request_id"], order["verb"], order["args"]))
            assert engine.wait(str(operation["id"]), PATIENCE)
        found = {
            "operations": [guest.journal.show(row.id) for row in guest.journal.ledger.all()],
            "status": engine.read("agent.status", {}),
            "building": engine.read("backup.building", {}),
            "settings": engine.read("settings.list", {"all": True}),
            "epoch": guest.journal.restore_epoch,
        }
        told.write_text(json.dumps(found))
        guest.journal.close()
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


if __name__ == "__main__":
    main()
