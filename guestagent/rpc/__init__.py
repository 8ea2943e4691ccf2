"""How the agent is spoken to: server and client made from the declarations, drivers, reports.

Threads are chosen here, before anything of oslo is loaded: oslo.service would fall back to
eventlet, and futurist imports it wherever it is installed.  This is the one place.
"""

import sys

from oslo_service import backend

sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type]
backend.register_backend_default_hook(lambda: backend.BackendType.THREADING)
