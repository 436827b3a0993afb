"""What a run's process does in a slot: takes its device and its log, passes word on, and heeds a wish to stop."""

import contextlib
import os
import signal
import sys
import threading
from multiprocessing import connection
from pathlib import Path
from typing import Any

from experiments.pool import Target

STOP = "stop"


def serve(target: Target, job: Any, visible: str | None, log: str, channel: connection.Connection) -> None:
    """What a run's process does: take its device, its log and its pipe, and run the target."""
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    # Ctrl-C in a terminal, or its end, reaches every process of it; the scheduler alone decides, and says so through
    # the pipe.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _redirect(log)
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    threading.Thread(target=_watch, args=(channel, asked), daemon=True).start()
    outcome = target(job, lambda content: channel.send(("word", content)), asked.is_set)
    channel.send(("outcome", outcome))
    channel.close()


def _watch(channel: connection.Connection, asked: threading.Event) -> None:
    """Hear the scheduler's wish to stop; when it is gone, so is this run, whose checkpoint stands."""
    with contextlib.suppress(EOFError, OSError):
        while channel.recv() == STOP:
            asked.set()
    if not channel.closed:
        os._exit(1)


def _redirect(log: str) -> None:
    try:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:  # a full disk: what keeps the record will say so, in words
        file = os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
