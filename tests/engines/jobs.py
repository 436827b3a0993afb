"""What the contract's tests run in slots; importable, since a run imports it by name."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.pool import Stopped


def work(job: dict[str, Any], send: Callable[[Any], None], stop_asked: Callable[[], bool]) -> Any:
    send({"pid": os.getpid(), "tag": job["tag"], "visible": os.environ["CUDA_VISIBLE_DEVICES"]})
    print("printed by", job["tag"], flush=True)
    return globals()[job["do"]](job, stop_asked)


def report(job: dict[str, Any], stop_asked: Callable[[], bool]) -> Any:
    return {"tag": job["tag"], "pid": os.getpid()}


def fail(job: dict[str, Any], stop_asked: Callable[[], bool]) -> Any:
    raise RuntimeError("an error that nobody caught")


def leave(job: dict[str, Any], stop_asked: Callable[[], bool]) -> Any:
    os._exit(7)


def die(job: dict[str, Any], stop_asked: Callable[[], bool]) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def until_released(job: dict[str, Any], stop_asked: Callable[[], bool]) -> Any:
    """Until it is asked to stop, or the test says go."""
    for _ in range(6000):
        if stop_asked():
            return Stopped()
        if Path(job["gate"]).exists():
            return {"tag": job["tag"], "pid": os.getpid()}
        time.sleep(0.02)
    return "waited in vain"
