"""What the agent does: plain functions of ``run.step``, and the engine that runs them.

* ``guest``     one node with all that an operation may use;
* ``run``       one operation while it runs: its steps, its journal, the reasons to end early;
* ``engine``    accepts, queues, resumes, cancels and ends operations;
* ``scopes``    which exclude which;
* the rest      the verbs.
"""

from guestagent.operations import backups, lifecycle, queries, restores, service, settings

MODULES = (lifecycle, service, settings, backups, restores, queries)

__all__ = ["MODULES"]
