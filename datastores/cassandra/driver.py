"""The driver, without what it would load wherever it is installed, and we never use: another kind of threads."""

import sys

sys.modules["cassandra.io.eventletreactor"] = None  # type: ignore[assignment]

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable  # noqa: E402

__all__ = ["EXEC_PROFILE_DEFAULT", "Cluster", "ExecutionProfile", "NoHostAvailable"]
