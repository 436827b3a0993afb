"""The fork server of this machine's runs: it imports what they need, and does nothing else.

A fresh interpreter takes seconds for that; a process from the server starts in hundredths of one. This module is light,
so that a command can start the server first and import the same at the same time.
"""

import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext

# What a run would import later stands here too: torch._dynamo comes with the first optimiser, the store with its first
# write; each takes a second or more.
PRELOAD = [
    "torch",
    "torchvision",
    "torch._dynamo",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.store.artifact.local_artifact_repo",
    "sqlalchemy.dialects.sqlite",
    "alembic.command",
    "experiments.scheduling.preflight",
]


def start(preload: Sequence[str] = PRELOAD) -> ForkServerContext:
    """Start the server unless it runs, without waiting for what it imports; returns what makes processes from it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    # The server starts it if nobody has, and that lets Ctrl-C through again.
    resource_tracker.ensure_running()
    # A Ctrl-C while it imports is for whoever started it; later it ignores that by itself.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context
