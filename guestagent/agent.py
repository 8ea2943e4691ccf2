"""The agent: everything one guest needs, put together from its settings, started and ended.

One process, threads only: oslo.service's threading backend without its launcher, whose master and child
would be two, and which would start a killed child again.  Nothing in here starts anything again.
"""

import json
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from oslo_service.service import ServiceBase

from datastores.contract import Datastore, Node
from datastores.manager import Manager
from guestagent import declarations
from guestagent.config import AgentSettings, Configuration
from guestagent.duties import Loop, loops
from guestagent.errors import Refused
from guestagent.image import installation, prove, read_image
from guestagent.journal import open_journal
from guestagent.journal.lock import claim
from guestagent.node import manager_for, node_for
from guestagent.operations.engine import Operations
from guestagent.operations.guest import Guest
from guestagent.operations.run import attempt
from guestagent.processes import at_work, end
from guestagent.rpc.reporter import Reporter
from guestagent.rpc.server import Door, serve
from guestagent.rpc.transport import hush, open_transport
from guestagent.supervisor import KILLED_AFTER

if TYPE_CHECKING:
    from objectstore.archive import Archive

LOG = logging.getLogger(__name__)

GRACE = 3.5
"""Seconds that operations are given to end when the agent is."""

_LAST = 1.2


class Agent(ServiceBase):  # type: ignore[misc]
    """One guest's agent.  ``start`` may wait for a broker; the rest of the agent works meanwhile."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        settings = configuration.settings
        self.guest = guest_for(settings)
        self._operations = Operations(self.guest, declarations.verbs())
        self._door = Door(self._operations, declarations.verbs(), self.guest.manager.datastore)
        self._transport: Any = open_transport(configuration.messaging, settings.transport_url)
        reporter = Reporter(self._transport, settings.guest_id, self.guest.boot_epoch)
        self._heartbeat, self._loops = loops(self.guest, reporter, settings.report_interval)
        self._end_serving = _nothing
        self._started: list[Loop] = []

    def start(self) -> None:
        """Go on with what a former life left, serve, beat once; ``SecondAgent`` where another one serves."""
        if not self.guest.journal.trouble and self.guest.journal.ledger.all(live=True):
            attempt("ending the tools of a former life", lambda: end_tools(self.guest.manager.node))
        self._operations.resume()
        # Before the first look at the server, which may be slow to answer: who asks is not kept waiting.
        self._end_serving = serve(self._transport, self.guest.guest_id, self._door)
        # What was resumed may be stopping the server just now; a look that fails is no reason not to be there.
        attempt("the first heartbeat", self._heartbeat.beat)
        for each in self._loops:
            each.start()
            self._started.append(each)

    def stop(self) -> None:
        """Take no more requests, end what can end, leave the database running; within five seconds."""
        self._door.close()
        ending = threading.Thread(target=self._end_serving, name="end-serving", daemon=True)
        ending.start()
        self._operations.stop(GRACE)
        for each in self._started:
            each.stop(timeout=0.1)
        ending.join(_LAST)
        self.guest.journal.close()

    def wait(self) -> None:
        """Return at once: ``stop`` has waited."""

    def reset(self) -> None:
        """Read the log level again; where the file cannot be read the old one stays."""
        try:
            self._configuration.read_log_level_again()
        except Refused as error:
            LOG.warning("The configuration was not read again: %s", error)
        hush()

    def tell_ready(self) -> None:
        """Print the one line that says so."""
        line = {"ready": self.guest.guest_id, "pid": os.getpid(), "epoch": self.guest.boot_epoch}
        print(json.dumps(line), flush=True, file=sys.stdout)


def end_tools(node: Node) -> None:
    """End what still works on staged data: a tool that was started in the moment of a kill did not die with us."""
    places = node.places
    for each in at_work(node.installation.tools.values(), places.staging, (places.data, places.config)):
        gone = end(each, signal.SIGKILL, KILLED_AFTER)
        told = "it was ended" if gone else "it does not end, not even killed"
        LOG.warning("Process %d of a former life worked on %s: %s", each.pid, places.staging, told)


def guest_for(settings: AgentSettings) -> Guest:
    """Return the guest that the settings describe.

    ``SecondAgent`` where one lives, ``ImageMismatch`` names what is missing, ``Refused`` (or ``BadInput``,
    ``BadRequest``) the setting that cannot be.
    """
    datastore = declarations.load(settings.datastore_manager)
    datastore.major(settings.datastore_version)
    archive = archive_for(settings)
    journal = open_journal(settings.state_dir)
    claim(settings.root)
    if journal.trouble:
        LOG.error("The journal is damaged; changes are refused: %s", journal.trouble)
    return Guest(
        guest_id=settings.guest_id,
        boot_epoch=journal.boot_epoch,
        manager=_manager(settings, datastore),
        archive=archive,
        journal=journal,
        state_dir=settings.state_dir,
    )


def archive_for(settings: AgentSettings) -> "Archive | None":
    """Return the archive of the realm, or None where none is configured."""
    if settings.realm is None:
        return None
    from objectstore.archive import Archive
    from objectstore.keys import LocalKeys
    from objectstore.realm import Realm, open_store

    if settings.key_file is None:
        raise Refused("a realm needs a key_file", field="key_file")
    realm = Realm.read(settings.realm)
    return Archive(
        open_store(realm, memory=settings.state_dir / "clusters"),
        realm.name,
        LocalKeys.from_file(settings.key_file),
        cache=settings.state_dir / "cache",
        wanted=realm.mirror,
        quorum=realm.write_quorum,
    )


def _manager(settings: AgentSettings, datastore: Datastore) -> Manager:
    name, version = settings.datastore_manager, settings.datastore_version
    facts = installation(read_image(settings.image), name, version, settings.prefix)
    node = node_for(
        settings.guest_id,
        datastore,
        version,
        facts,
        settings.root,
        settings.state_dir,
        bind=settings.bind,
        port=settings.port,
    )
    prove(facts, node.host)
    return manager_for(datastore, node, settings.state_dir, settings.supervisor)


def _nothing() -> None:
    return None
