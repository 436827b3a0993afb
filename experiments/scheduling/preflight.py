"""Before anything is trained: one step of each arm on the pool's device, so that a mistake shows now and not at night.

Arms that must be equal are held against each other after that step, bit by bit: DHM with weight 0 is DSL.
"""

import dataclasses
import hashlib
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dhm.data import load
from dhm.engine import fit
from dhm.recipe import Recipe
from dhm.training import Callback, NotFiniteError, Runtime, Training
from experiments.grid import Cell, Plan
from experiments.pool import Ended, Pool, Send
from experiments.scheduling.timing import Timing, run_timing
from experiments.trial import run_cell
from experiments.words import told

TRIES = 3
CPU_BATCH = 8  # images of the step on a CPU, for each replica; a GPU takes the whole batch, which must fit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """Arms of which one step is to be made.

    Args:
        recipes: by variant.
    """

    recipes: dict[str, Recipe]
    seed: int
    runtime: Runtime


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probed:
    """What came of a probe.

    Args:
        weights: digest of all weights after the step, by variant; of those before the one that failed.
        failed: the variant that failed, and the last line of its error; none if all are well.
    """

    weights: dict[str, str]
    failed: tuple[str, str] | None = None


class _EnoughError(Exception):
    pass


class _FirstStep(Callback):
    """Leaves after one step, with the digest of what it made of the weights."""

    digest = ""

    def on_step(self, training: Training) -> None:
        digest = hashlib.sha256()
        for name, tensor in training.network.state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                raise NotFiniteError(
                    f"{name} is not finite after one step: a term of the loss is infinite, or optim.lr is far too large"
                )
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        self.digest = digest.hexdigest()
        raise _EnoughError


def run_job(job: Any, send: Send, stop_asked: Callable[[], bool]) -> Any:
    """What a pool runs in its slots: cells, and before them a probe, and steps that are timed."""
    if isinstance(job, Timing):
        return run_timing(job, send, stop_asked)
    return run_probe(job, stop_asked) if isinstance(job, Probe) else run_cell(job, send, stop_asked)


def run_probe(probe: Probe, stop_asked: Callable[[], bool] = lambda: False) -> Probed:
    """Make one step of each arm. An error is an outcome, not an exception."""
    weights: dict[str, str] = {}
    data = None
    for name, recipe in probe.recipes.items():
        if stop_asked():
            break
        first = _FirstStep()
        try:
            data = data or load(recipe.data, probe.runtime.data_root, probe.runtime.cache)
            images = data.check(recipe.data, probe.seed)
            fit(_small(recipe, probe.runtime, images), probe.seed, probe.runtime, [first], data)
        except _EnoughError:
            weights[name] = first.digest
        except Exception as error:
            traceback.print_exc()
            return Probed(weights=weights, failed=(name, told(error)))
    return Probed(weights=weights)


def check(plan: Plan, cells: Sequence[Cell], pool: Pool, runtime: Runtime, log: Path) -> float:
    """Make one step of every arm that has a cell to be trained, in a slot of the pool.

    Args:
        cells: those that are to be trained.
        runtime: of the runs.
        log: file for what the probe prints.

    Returns:
        the seconds that it took.

    Raises:
        ValueError: an arm cannot be trained, or arms that must be equal are not.
    """
    started = time.monotonic()
    wanted = {cell.variant.name for cell in cells}
    recipes = {variant.name: variant.recipe for variant in plan.variants}
    # Kernels that are quicker and give other bits each time make nothing equal.
    equal = equal_arms(recipes) if runtime.deterministic else []
    groups = [names for names in equal if wanted & set(names)]
    chosen = wanted.union(*groups)
    probe = Probe(
        recipes={name: recipe for name, recipe in recipes.items() if name in chosen},
        seed=plan.seeds[0],
        runtime=dataclasses.replace(runtime, checkpoint=None, workers=0, compile=False),
    )
    judge(_first_outcome(probe, pool, log), groups, log)
    return time.monotonic() - started


def _first_outcome(probe: Probe, pool: Pool, log: Path) -> Probed:
    """What a probe says; one that is killed, from outside perhaps, is sent again."""
    slot, ended = pool.slots[0], None
    for _ in range(TRIES):
        pool.start(slot, probe, str(log))
        ended = None
        while ended is None:
            ended = next((event for event in pool.wait(0.25) if isinstance(event, Ended)), None)
        if ended.lost is None:
            found: Probed = ended.outcome
            return found
    raise ValueError(
        f"the first step of {', '.join(probe.recipes)} was lost {TRIES} times on {slot.name} ({ended and ended.lost}), "
        f"perhaps for want of memory: give a smaller optim.batch_size, or fewer slots; {log} has what it printed"
    )


def judge(found: Probed, groups: Sequence[Sequence[str]], log: Path) -> None:
    """Raise a ValueError unless every step went well and equal arms are equal."""
    if found.failed is not None:
        name, error = found.failed
        remedy = "; pool.deterministic=false trains it" if "have a deterministic implementation" in error else ""
        raise ValueError(
            f"nothing was started: {name!r} fails at its first step, with {error}{remedy}. {log} has the whole trace"
        )
    for names in groups:
        if len({found.weights[name] for name in names if name in found.weights}) > 1:
            raise ValueError(
                f"nothing was started: {' and '.join(map(repr, names))} must be equal to the bit, and their weights "
                "differ after one step. Find what the mimicking loss does at alpha=0"
            )


def equal_arms(recipes: dict[str, Recipe]) -> list[list[str]]:
    """Groups of variants that are different recipes of one thing: mimicking with weight 0 is none."""
    groups: dict[Recipe, list[str]] = {}
    for name, recipe in recipes.items():
        idle = recipe.mimic is not None and recipe.mimic.alpha == 0
        groups.setdefault(dataclasses.replace(recipe, mimic=None) if idle else recipe, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _small(recipe: Recipe, runtime: Runtime, images: int) -> Recipe:
    """The recipe with a small batch on a CPU, whose last one has something for each replica as well."""
    if runtime.device != "cpu":
        return recipe
    most = min(recipe.optim.batch_size, CPU_BATCH * recipe.replicas)
    fitting = (size for size in range(most, 0, -1) if (images % size or size) >= recipe.replicas)
    batch = next(fitting, recipe.optim.batch_size)
    return dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, batch_size=batch))
