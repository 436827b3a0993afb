"""Energy of the device that a run trains on, where the machine counts it: NVIDIA's driver for a GPU, RAPL for a CPU.

The counters are those of a whole GPU or processor package. Runs that share one count its energy each: divide by the
slots, or give each run a device, before you add them up.
"""

import ctypes
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from analysis import schema
from dhm.training import Callback, EpochRecord, Training

RAPL = Path("/sys/class/powercap")
JOULES_PER_WH = 3600.0

Counter = Callable[[], float]
"""Joules since some moment; only differences mean anything. An OSError where it cannot be read just now."""


class EnergyMeter(Callback):
    """Adds to every epoch the energy since the one before (since the start, for the first), in watt-hours.

    It is kept with the history, so that a run which is resumed has the whole of it but for what was repeated.
    """

    def __init__(self) -> None:
        self._counter: Counter | None = None
        self._last = 0.0

    def on_start(self, training: Training) -> None:
        """Find the counter of the run's devices."""
        replicas = [dataclasses.replace(training.replica, index=index) for index in range(training.replica.count)]
        devices = [torch.device(replica.device(training.runtime.device)) for replica in replicas]
        self._counter = gpu_counter(devices) if training.device.type == "cuda" else cpu_counter()
        self._last = self._counter() if self._counter else 0.0

    def measure(self, training: Training) -> dict[str, float]:
        """The epoch's energy; nothing where nobody counts it."""
        if self._counter is None:
            return {}
        try:
            now = self._counter()
        except OSError:
            return {}
        spent, self._last = now - self._last, now
        # A counter of a package starts again from 0 now and then.
        return {schema.EPOCH_ENERGY: spent / JOULES_PER_WH} if spent >= 0 else {}


def total(history: tuple[EpochRecord, ...]) -> float | None:
    """Watt-hours of a whole run; none where any epoch lacks them."""
    found = [record.metrics.get(schema.EPOCH_ENERGY) for record in history]
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None


def cpu_counter(folder: Path = RAPL) -> Counter | None:
    """All processor packages together, if this process may read them."""
    files = sorted(folder.glob("intel-rapl:?/energy_uj"))

    def joules() -> float:
        return sum(int(file.read_text()) for file in files) / 1e6

    try:
        joules()
    except (OSError, ValueError):
        return None
    return joules if files else None


def gpu_counter(devices: Sequence[torch.device], library: ctypes.CDLL | None = None) -> Counter | None:
    """The GPUs of a run together, if their driver counts energy (Volta and later)."""
    handles = []
    try:
        nvml = library or ctypes.CDLL("libnvidia-ml.so.1")
        if nvml.nvmlInit_v2():
            return None
        for device in devices:
            handles.append(ctypes.c_void_p())
            name = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
            if nvml.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handles[-1])):
                return None
    except (OSError, AttributeError):
        return None

    def joules() -> float:
        found = 0.0
        for handle in handles:
            value = ctypes.c_ulonglong()
            if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value)):
                raise OSError("NVML does not tell the energy of a GPU")
            found += value.value / 1e3
        return found

    try:
        return joules if joules() > 0 else None
    except OSError:
        return None
