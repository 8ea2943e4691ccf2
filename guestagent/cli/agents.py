"""Talking to the agent: the client, the commands that wait, and ``agent start``."""

import argparse
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cliff.command import Command

from datastores.contract import JSON
from guestagent.cli.progress import follower
from guestagent.cli.requests import seconds
from guestagent.cli.show import Object
from guestagent.declarations import Verb
from guestagent.errors import AgentError, DeadlinePassed, Fault, Refused, Told
from guestagent.status import Status as State

if TYPE_CHECKING:
    from guestagent.rpc.client import Client

ENDED = ("succeeded", "failed", "interrupted", "cancelled")


class Asking:
    """A command that talks to the agent; mixed into cliff's."""

    app: Any

    def client(self) -> "Client":
        """Return the agent's client; ``Refused`` where no agent is named."""
        from guestagent.rpc.client import connect

        if not self.app.options.agent:
            raise Refused("no agent is named", field="agent", hint="--agent unix:///dir?id=GUEST, or OSTLER_AGENT")
        if urlsplit(self.app.options.agent).password is not None:
            hint = "OSTLER_AGENT_PASSWORD_FILE names a file (mode 0600) that holds it"
            raise Refused("a password does not belong in the agent's URL", field="agent", hint=hint)
        return connect(self.app.options.agent)

    def ask(self, verb: Verb, values: Mapping[str, JSON]) -> JSON:
        """Send one request with the command's deadline and id; return the agent's answer."""
        options = self.app.options
        return self.client().call(
            verb.noun,
            verb.name,
            values,
            deadline=options.deadline or (60.0 if verb.mark.changes else verb.mark.timeout),
            request_id=str(uuid.uuid4()) if options.request_id is None else options.request_id,
            expires=options.deadline if verb.mark.changes else None,
        )

    def outcome(self, operation: Mapping[str, JSON]) -> dict[str, JSON]:
        """Wait for an operation, showing its progress; raise what it failed with."""
        with follower(str(operation["verb"]), self.app.options.progress) as shown:
            ended = self.client().wait_for(
                str(operation["id"]), deadline=self.app.options.deadline, progress=shown.operation
            )
        if ended["state"] != "succeeded":
            raise Told(_fault(ended))
        return ended


def _fault(ended: Mapping[str, JSON]) -> Fault:
    error = ended.get("error")
    kind = {"cancelled": "Cancelled", "interrupted": "Interrupted"}.get(str(ended["state"]), "Failed")
    known: dict[str, Any] = {"type": kind, "message": f"the operation {ended['state']}"}
    if isinstance(error, dict):
        known.update({name: value for name, value in error.items() if name in Fault.__dataclass_fields__})
    known["operation"] = str(ended["id"])
    return Fault(**known)


class Status(Asking, Object):
    """Show the agent, its database and what they are doing; or wait for a state."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        states = [state.value for state in State]
        text = "return when the status is this, as HEALTHY"
        parser.add_argument("--wait", metavar="STATE", type=str.upper, choices=states, help=text)
        parser.add_argument("--timeout", metavar="S", type=seconds, default=60.0, help="wait at most this long (60)")
        return parser

    def result(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        with closing(self.client()) as client:
            if parsed.wait is None:
                return self._look(client)
            return self._wait(client, parsed.wait, parsed.timeout)

    def _wait(self, client: "Client", wanted: str, timeout: float) -> Mapping[str, object]:
        end = time.monotonic() + timeout
        while True:
            late: AgentError
            try:
                seen = self._look(client)
                if seen["status"] == wanted:
                    return seen
                late = DeadlinePassed(f"status is {seen['status']}, not {wanted}, after {timeout} s")
            except AgentError as error:
                fault = Fault.of(error)
                if not fault.retry and fault.type != DeadlinePassed.__name__:
                    raise
                # An agent that is only just starting, that is busy or whose server is slow, answers later.
                late = error
            if time.monotonic() > end:
                raise late
            time.sleep(0.25)

    def _look(self, client: "Client") -> Mapping[str, object]:
        seen = client.call("agent", "status", {}, deadline=self.app.options.deadline or 10.0)
        if not isinstance(seen, dict):
            raise Refused("the agent's status is not an object")
        return seen


class Start(Command):
    """Run the agent in the foreground until SIGTERM; SIGHUP reads the log level again."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("--config-file", required=True, metavar="FILE")
        parser.add_argument("--config-dir", metavar="DIR")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from guestagent.main import start_agent

        words: Sequence[str] = ["--config-file", parsed_args.config_file]
        return start_agent([*words, *(["--config-dir", parsed_args.config_dir] if parsed_args.config_dir else [])])


def commands() -> dict[str, type[Command]]:
    """Return this room's commands by name."""
    return {"status": Status, "agent start": Start}
