"""The other process of `experiments.reproduce`: trains what it is told on standard input, and tells every epoch.

It is started by its path and knows `dhm` alone, so that it can train with the `dhm` of another commit. A line of JSON
is told for the start, for every epoch, and for an error.
"""

import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from dhm.diagnostics import Diagnostics
from dhm.engine import fit
from dhm.fields import from_dict
from dhm.recipe import Recipe
from dhm.training import Callback, Runtime, Training


class Teller(Callback):
    """Tells what happens."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def tell(self, kind: str, **content: Any) -> None:
        """Tell one thing."""
        print(json.dumps({"kind": kind, **content}), file=self._channel, flush=True)

    def on_start(self, training: Training) -> None:
        """Tell on what it is trained, before it is."""
        self.tell("start", data=training.data.fingerprint, device=str(training.device))

    def on_epoch_end(self, training: Training) -> None:
        """Tell every figure, with all its digits."""
        record = training.history[-1]
        self.tell("epoch", epoch=record.epoch, metrics=record.metrics)


def main() -> None:
    """Train what standard input says."""
    # Whatever a library prints must not come between the lines.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    teller = Teller(channel)
    try:
        job = json.load(sys.stdin)
        known = {field.name for field in dataclasses.fields(Runtime)}
        runtime = {name: value for name, value in job["runtime"].items() if name in known}
        runtime |= {name: job[name] and Path(job[name]) for name in ("data_root", "cache")}
        runtime["parts"] = tuple(runtime.get("parts", ("val", "test")))
        callbacks: list[Callback] = [teller]
        if job["diagnostics"]:
            callbacks.append(Diagnostics(**job["diagnostics"]))
        result = fit(from_dict(Recipe, job["recipe"]), job["seed"], Runtime(**runtime), callbacks)
        torch.save(result.network.main_only().state_dict(), job["weights"])
    except ValueError as error:
        teller.tell("mistake", message=str(error))
    except Exception as error:
        teller.tell("failure", message=f"{type(error).__name__}: {error}", trace=traceback.format_exc())


if __name__ == "__main__":
    main()
