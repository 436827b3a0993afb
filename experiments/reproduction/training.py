"""A recorded run, trained once more in a process of its own."""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dhm.fields import to_dict
from experiments.recording.provenance import VARIABLES
from experiments.reproduction import rerun
from experiments.reproduction.comparison import Curve
from experiments.reproduction.record import RunRecord

# Variables that are set as they were. No others: a record comes from anybody, and some name libraries to load.
KEPT = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_DYNAMIC", "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip

Show = Callable[[int, dict[str, float]], None]
"""Told how many epochs are done, and the figures of the last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run is trained again.

    Args:
        tree: the working tree whose `dhm` trains.
        scratch: an empty folder.
        cache: of decoded images.
        device: in place of the recorded one, if any.
    """

    tree: Path
    scratch: Path
    cache: Path
    data_root: Path | None
    device: str | None

    @property
    def weights(self) -> Path:
        """Where the main branch's weights are when it is done."""
        return self.scratch / "main.pt"


def train_again(record: RunRecord, place: Place, show: Show) -> dict[str, Curve]:
    """The curves of the run as it comes out now.

    Raises:
        ValueError: it cannot be trained here, on other data, or not to its end.
    """
    log = place.scratch / "log"
    curves: dict[str, Curve] = {}
    with (
        log.open("w") as errors,
        subprocess.Popen(
            # -P: the folder of the script is no place to import from. The tree comes before what is installed.
            [sys.executable, "-P", str(Path(rerun.__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=place.tree,
            env={**_surroundings(record), "PYTHONPATH": str(place.tree)},
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(_job(record, place)))
                process.stdin.close()
            for line in process.stdout:
                _heed(json.loads(line), record, curves, show)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        said = log.read_text().strip().splitlines() or ["it said nothing"]
        raise ValueError(f"the run ended too early, with code {process.returncode}: {said[-1]}")
    return curves


def same_weights(recorded: Path, now: Path) -> bool | None:
    """Whether the main branch's weights are equal to the bit; none where the record has none that can be read."""
    try:
        one, two = (torch.load(path, map_location="cpu", weights_only=True) for path in (recorded, now))
        return set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)
    except Exception:  # a damaged file makes torch.load raise what it likes
        return None


def _job(record: RunRecord, place: Place) -> dict[str, Any]:
    recorded = record.environment.get("runtime", {})
    device = place.device or recorded.get("device", "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(f"device={device}: give cpu or cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"{record.name} is to run on {device}, and torch sees no GPU here: give device=cpu")
    return {
        "recipe": to_dict(record.recipe),
        "seed": record.seed,
        "runtime": {"threads": record.environment.get("threads", 1), **recorded, "device": device, "workers": 0},
        "diagnostics": record.environment.get("diagnostics"),
        "data_root": place.data_root and str(place.data_root),
        "cache": str(place.cache),
        "weights": str(place.weights),
    }


def _surroundings(record: RunRecord) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}
    own |= {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER") if name in os.environ}
    there = record.environment.get("numerics", {}).get("variables", {})
    return own | {name: there[name] for name in KEPT if re.fullmatch(r"[\w:.,+-]+", str(there.get(name, "")))}


def _heed(word: dict[str, Any], record: RunRecord, curves: dict[str, Curve], show: Show) -> None:
    match word:
        case {"kind": "mistake", "message": message}:
            raise ValueError(f"{record.name} cannot be trained here: {message}")
        case {"kind": "failure", "message": message}:
            raise ValueError(f"{record.name} ended well when it was recorded, and fails now: {message}")
        case {"kind": "start", "data": data} if data != record.data:
            raise ValueError(
                f"the data is not what {record.name} was trained on: its fingerprint was {record.data}, and is {data}. "
                "Give the folder of the same images with data.root=DIR"
            )
        case {"kind": "epoch", "epoch": epoch, "metrics": metrics}:
            for name, value in metrics.items():
                curves[name] = {**curves.get(name, {}), epoch: value}
            show(epoch + 1, metrics)
