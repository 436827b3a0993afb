"""The machine that figures are from, and how busy it was."""

import os
import platform
from typing import Any

import torch

from experiments.provenance import collect


def describe(**more: Any) -> dict[str, Any]:
    """Processor, versions and the load average of the last minute, before anything is measured."""
    return {
        "processor": collect().environment["processor"],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 2),
        **more,
    }
