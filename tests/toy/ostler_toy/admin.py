"""The toy server itself."""

import secrets
import signal

from datastores.contract import Admin, Command, NotReady
from ostler_toy.wire import connection


class ToyAdmin(Admin):
    """Initialise, start, secure and end a toy server."""

    def initialise(self) -> None:
        """Make the data of a new server."""
        self.node.host.folder(self.node.places.data)
        self.node.host.run(Command((self._program, "--initialise", str(self.node.places.data))), as_owner=True)

    def command(self) -> Command:
        """Return the command that serves the generation in force."""
        return Command((self._program, str(self.node.places.config)))

    def ping(self) -> None:
        """Return when it answers."""
        with connection(self.node) as ask:
            ask("ping")

    def version(self) -> str:
        """Return the running server's version."""
        with connection(self.node) as ask:
            return str(ask("version"))

    def secure(self) -> None:
        """Shut the door that a new server has open; the agent comes by the socket."""
        with connection(self.node) as ask:
            ask("secure")

    def quiesce(self) -> None:
        """Nothing: every write is on disk."""

    def stop_signal(self) -> int:
        """Return SIGTERM."""
        return signal.SIGTERM

    def probe(self) -> None:
        """Write a setting nobody else reads and read it back."""
        token = secrets.token_hex(4)
        with connection(self.node) as ask:
            if ask("config", values={"probe": token}).get("probe") != token:
                raise NotReady("what was written was not read back")

    @property
    def _program(self) -> str:
        return str(self.node.installation.tools["server"])
