"""What the pool tests run in slots; importable, since a run imports it by name."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any


def work(job: dict[str, Any], send: Callable[[Any], None], stop_asked: Callable[[], bool]) -> Any:
    send({"pid": os.getpid(), "visible": os.environ.get("CUDA_VISIBLE_DEVICES")})
    print("printed by", job["do"], flush=True)
    return {"report": report, "wait": wait}[job["do"]](stop_asked)


def report(stop_asked: Callable[[], bool]) -> Any:
    return {
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "main": sys.modules["__main__"].__name__,
        "torch": "torch" in sys.modules,
        "cuda_started": sys.modules["torch"].cuda.is_initialized(),
    }


def wait(stop_asked: Callable[[], bool]) -> Any:
    for _ in range(3000):
        if stop_asked():
            return "stopped"
        time.sleep(0.02)
    return "waited in vain"
