"""The record of a run, as far as it takes to train it again. It may be anybody's: it is checked, not believed."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import schema, store
from dhm.fields import from_dict
from dhm.recipe import Recipe
from experiments.grid import recipe_id
from experiments.reproduction.comparison import Curve
from experiments.stores import Stores

PARTS: dict[str, Any] = {
    "packages": dict,
    "runtime": dict,
    "numerics": dict,
    "threads": int,
    "diagnostics": dict | None,
}  # of environment.json, with their types
READINGS = ("final/", "best/", "cost/")  # metrics that are no curves, or no result


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run that ended well.

    Args:
        data: fingerprint of the data's content.
        folder: of its artifacts.
        curves: its metrics by epoch.
    """

    run_id: str
    name: str
    experiment: str
    recipe: Recipe
    seed: int
    data: str
    commit: str
    code: str
    environment: Mapping[str, Any]
    folder: Path
    curves: Mapping[str, Curve]

    @property
    def patch(self) -> Path | None:
        """Its uncommitted changes, if there were any."""
        path = self.folder / schema.PATCH_FILE
        return path if path.is_file() else None


def read_record(stores: Stores, word: str) -> RunRecord:
    """The record that a run id, the beginning of one, or a name means.

    Raises:
        ValueError: no such run, one that did not end well, or a record that was changed since it was written.
    """
    found = store.find(stores.tracking_uri, word)
    run_id, tags = found["run_id"], found["tags"]
    who = f"run {run_id} ({found['name']})"
    if found["status"] != "FINISHED":
        raise ValueError(f"{who} of {found['experiment']} {_unfinished(found['status'], tags)}")
    folder = artifact_folder(stores, found["experiment"], run_id)
    document = _json(folder / schema.RECIPE_FILE, who)
    try:
        recipe, seed = from_dict(Recipe, document["recipe"]), document["seed"]
        made = f"{recipe_id(recipe, document['data'])}-s{seed}"
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{folder / schema.RECIPE_FILE} is no record of a recipe any more: {error}") from error
    said = tags.get(schema.CELL_ID) or tags.get(schema.TRIAL_ID, "").removesuffix("-trial")
    if made != said or isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(
            f"{folder / schema.RECIPE_FILE} was changed since {who} was recorded: it holds {made}, and the run is "
            f"{said or 'no cell'}. Put the file back, or run the grid anew"
        )
    commit, code = tags.get(schema.COMMIT, "unknown"), tags.get(schema.CODE, "unknown")
    if not re.fullmatch(r"unknown|[0-9a-f]{40,64}", commit):
        raise ValueError(f"{who} names a commit that is none: {commit!r}")
    names = [name for name in found["metrics"] if not name.startswith(READINGS)]
    curves = store.curves(stores.tracking_uri, pd.DataFrame({"run_id": [run_id]}), names)
    return RunRecord(
        run_id=run_id,
        name=str(found["name"]),
        experiment=found["experiment"],
        recipe=recipe,
        seed=seed,
        data=document["data"],
        commit=commit,
        code=code,
        environment=_environment(folder / schema.ENVIRONMENT_FILE, who),
        folder=folder,
        curves={
            str(name): {int(epoch): float(value) for epoch, value in zip(part["epoch"], part["value"], strict=True)}
            for name, part in curves.groupby("metric")
        },
    )


def _unfinished(status: str, tags: Mapping[str, str]) -> str:
    if schema.PRUNED in tags:
        return "was given up, since other trials did better: give one that was trained to its end"
    if status == "FAILED":
        return "failed: give a run that is done, or run its grid again with retry=failed"
    return f"did not end well, it is {status}: give a run that is done, or let its grid go on with the same command"


def artifact_folder(stores: Stores, experiment: str, run_id: str) -> Path:
    """Where a run's artifacts lie beneath the store, wherever that was when they were written.

    Raises:
        ValueError: the names lead out of the store.
    """
    root = stores.artifacts.resolve()
    folder = (root / experiment / run_id / "artifacts").resolve()
    if not folder.is_relative_to(root) or folder == root:
        raise ValueError(f"the record of {experiment}, run {run_id}, leads out of its store {stores.root}")
    return folder


def _environment(path: Path, who: str) -> dict[str, Any]:
    content = _json(path, who)
    numerics = content.get("numerics")
    variables = numerics.get("variables", {}) if isinstance(numerics, dict) else {}
    runtime = content.get("runtime")
    device = runtime.get("device", "cpu") if isinstance(runtime, dict) else "cpu"
    parts = [(name, content[name], kind) for name, kind in PARTS.items() if name in content]
    for name, value, kind in [*parts, ("variables", variables, dict), ("device", device, str)]:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{path} was changed since {who} was recorded: its {name} is {str(value)[:80]!r}")
    return content


def _json(path: Path, who: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{who} has no {path.name}: its artifacts are not beneath {path.parent}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}): put it back, or run the grid anew") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no record: put it back, or run the grid anew")
    return content
