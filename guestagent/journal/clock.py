"""Times as people and programs outside read them: ISO 8601 in UTC."""

from datetime import UTC, datetime


def now() -> str:
    """Return the time of day as ``2026-01-31T12:00:00.000Z``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
