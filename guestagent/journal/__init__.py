"""The journal: what was asked of this agent, and how far it went."""

from guestagent.journal.opening import Journal, look, open_journal
from guestagent.journal.outbox import Outbox, Report
from guestagent.journal.rows import (
    CANCELLED,
    FAILED,
    INTERRUPTED,
    LIVE,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    Row,
)

__all__ = [
    "CANCELLED",
    "FAILED",
    "INTERRUPTED",
    "LIVE",
    "QUEUED",
    "RUNNING",
    "SUCCEEDED",
    "Journal",
    "Outbox",
    "Report",
    "Row",
    "look",
    "open_journal",
]
