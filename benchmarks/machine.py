"""The machine that figures are from, and how busy it was."""

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from experiments.recording.provenance import collect


def describe(**more: Any) -> dict[str, Any]:
    """Processor, versions, the day, and the load average of the last minute, before anything is measured."""
    return {
        "processor": collect().environment["processor"],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "load": round(os.getloadavg()[0], 2),
        **more,
    }


def write(out: Path, command: str, machine: dict[str, Any], **figures: Any) -> None:
    """Keep figures with the command and the machine that they are from."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"command": command, "machine": machine, **figures}, indent=1) + "\n")
    print(f"written to {out}")


def device_words(device: str) -> dict[str, str]:
    """The GPU's name, for `describe`; nothing for a CPU."""
    return {} if device == "cpu" else {"device": torch.cuda.get_device_name(device)}


def settle(device: str) -> None:
    """Wait until a device has done what it was asked for, before the clock is read."""
    if device != "cpu":
        torch.cuda.synchronize(device)
