"""The suites.  Threads are chosen here, before a test loads anything of oslo."""

import guestagent.rpc  # noqa: F401
