"""How many runs a device carries at once: `pool.slots_per_gpu=auto`, `pool.cpu_slots=auto`.

Steps of the plan's most expensive recipe are made for a few seconds in one process a slot, then in more of them, until
the sum of images a second stops growing or memory ends. What was found is kept beside the record, by recipe, machine
and settings, so that it is measured once. It decides when a run trains and never what comes of it.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from analysis import schema
from analysis.files import write_whole
from dhm.data import DataSet
from dhm.training import Runtime
from experiments.costs import cost_of
from experiments.grid import Plan, Variant, digest, recipe_id
from experiments.pool import Target
from experiments.pools.parts.arrangement import Arrangement
from experiments.recording.provenance import environment
from experiments.scheduling.timing import Timed, Timing, Unfit, free_memory, rate, watch
from experiments.stores import Stores

GAIN = 1.05  # what one more try must bring; less is noise
FILE = "packing.json"
BUSY = 0.5  # load of each core, above which what was measured is not kept
NO_ROOM = "more do not fit into memory"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packing:
    """What was found for a recipe on a machine.

    Args:
        at_once: runs on each device.
        images_per_s: of all runs together, by how many there are on each device.
        ended: why no more were tried.
    """

    at_once: int
    images_per_s: Mapping[int, float]
    ended: str

    @property
    def words(self) -> str:
        """For a person."""
        tried = ", ".join(f"{count} at once {speed:,.0f} images/s" for count, speed in self.images_per_s.items())
        return f"{tried or 'nothing fits'}; {self.ended}: {self.at_once} at once"


class Packer:
    """Finds how many runs at once a pool is to have.

    Args:
        arrangement: of which `packed` makes one with so many runs on each device.
        runtime: of every run.
    """

    def __init__(self, arrangement: Arrangement, runtime: Runtime, stores: Stores) -> None:
        self._arrangement, self._runtime, self._stores = arrangement, runtime, stores
        self._each = 0  # bytes that a run takes, as far as it is known

    @property
    def file(self) -> Path:
        """Where what was found is kept; without it all is measured anew."""
        return self._stores.root / FILE

    def remembered(self, plan: Plan, data: DataSet) -> Packing | None:
        """What was found for a plan's most expensive recipe on this machine, if anything was."""
        kept = self._kept().get(self._key(plan, _dearest(plan, data, self._stores)))
        if kept is None:
            return None
        rates = {int(count): speed for count, speed in kept["images_per_s"].items()}
        return Packing(at_once=kept["at_once"], images_per_s=rates, ended=kept["ended"])

    def settle(self, plan: Plan, data: DataSet, console: Console, target: Target) -> Arrangement:
        """The arrangement with as many runs at once as serve best; measured, unless that was done before.

        Args:
            target: what its pools run; it must take `Timing`.

        Raises:
            ValueError: the recipe cannot be trained.
        """
        found, asked = self.remembered(plan, data), self._arrangement.automatic
        assert asked is not None
        if found is not None:
            console.print(
                f"{asked.setting}=auto: {found.at_once} at once, as measured before; to measure again, delete "
                f"{self.file}",
                soft_wrap=True,
            )
            return asked.arranged(found.at_once)
        variant, load = _dearest(plan, data, self._stores), os.getloadavg()[0]
        with console.status(
            f"{asked.setting}=auto: timing steps of {variant.name!r}, the most work of the plan"
        ) as seen:

            def told(count: int) -> float | str:
                seen.update(f"{asked.setting}=auto: timing steps of {variant.name!r}, {count} at once")
                return self._timed(asked.arranged(count), variant, plan, target)

            found = climb(told, asked.most)
        console.print(f"{asked.setting}=auto, timed with steps of {variant.name!r}: {found.words}", soft_wrap=True)
        if load > BUSY * (os.cpu_count() or 1):
            console.print(f"other programs kept the machine busy (load {load:.1f}): measured again next time")
        else:
            self._keep(self._key(plan, variant), found, variant)
        return asked.arranged(found.at_once)

    def _timed(self, arrangement: Arrangement, variant: Variant, plan: Plan, target: Target) -> float | str:
        """Images a second of one run in every slot, or why that cannot be."""
        places, free = arrangement.slots, free_memory()
        if free is not None and len(places) * self._each > free:
            return NO_ROOM  # known beforehand: the kernel would end some process, and perhaps another one
        runtime = dataclasses.replace(
            self._runtime,
            device=places[0].device,
            workers=arrangement.workers,
            cache=self._stores.cache,
            checkpoint=None,
            parts=(),
        )
        job = Timing(recipe=variant.recipe, seed=plan.seeds[0], runtime=runtime)
        log = self._stores.log(f"packing-{plan.plan_id}")
        pool = arrangement.open(self._stores.root, target)
        try:
            for slot in places:
                pool.start(slot, job, str(log))
            ended, window = watch(pool)
        finally:
            pool.close()
        for end in ended:
            if end.lost is not None:
                return f"with more a run was {end.lost}, perhaps for want of memory"
            if isinstance(end.outcome, Unfit):
                if end.outcome.failure == schema.OUT_OF_MEMORY:
                    return NO_ROOM
                raise ValueError(
                    f"nothing was started: {variant.name!r} fails at its first steps, with {end.outcome.message}. "
                    f"{log} has the whole trace"
                )
        runs = [end.outcome for end in ended if isinstance(end.outcome, Timed)]
        self._each = max(run.memory for run in runs)
        return sum(rate(run.steps, *window) for run in runs)

    def _key(self, plan: Plan, variant: Variant) -> str:
        machine = environment()
        runtime = dataclasses.replace(self._runtime, data_root=None, workers=0)
        return digest(
            {
                "recipe": recipe_id(variant.recipe, plan.fingerprint),
                "machine": [machine[name] for name in ("host", "processor", "cores", "gpus", "cuda")],
                "torch": machine["packages"].get("torch"),
                "slots": [slot.name for slot in self._arrangement.slots],
                "runtime": {field.name: str(getattr(runtime, field.name)) for field in dataclasses.fields(runtime)},
            }
        )

    def _kept(self) -> dict[str, Any]:
        try:
            kept: dict[str, Any] = json.loads(self.file.read_text())
        except (OSError, ValueError):
            return {}
        return kept

    def _keep(self, key: str, found: Packing, variant: Variant) -> None:
        day = time.strftime("%Y-%m-%d", time.gmtime())
        entry = {**dataclasses.asdict(found), "variant": variant.name, "host": environment()["host"], "day": day}
        write_whole(self.file, json.dumps({**self._kept(), key: entry}, indent=1) + "\n")


def climb(timed: Callable[[int], float | str], most: int) -> Packing:
    """Try 1, 2, 3, 4, 6, 8, 12, ... runs at once, until they bring no more.

    Args:
        timed: images a second of so many runs at once on each device, or why they cannot be.
        most: how many are tried at most.
    """
    found: dict[int, float] = {}
    best, ended = 1, "no more were tried"
    for count in _counts(most):
        together = timed(count)
        if isinstance(together, str):
            ended = together
            break
        found[count] = together
        if count > 1 and together < GAIN * found[best]:
            ended = "more bring no more"
            break
        best = count
    return Packing(at_once=best, images_per_s=found, ended=ended)


def _counts(most: int) -> list[int]:
    fewer = {base << power for base in (1, 3) for power in range(most.bit_length())}
    return sorted({count for count in fewer if count < most} | {most})


def _dearest(plan: Plan, data: DataSet, stores: Stores) -> Variant:
    """The variant whose step takes most."""

    def work(variant: Variant) -> tuple[int, bool]:
        return cost_of(variant.recipe, data, stores).flops, variant.recipe.mimic is not None

    return max(plan.variants, key=work)
