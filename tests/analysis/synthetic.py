"""Records made up for the reader's tests: the schema's names, numbers from a seeded generator, no training."""

import dataclasses
import itertools
import math
import random
import zlib
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from analysis import coverage, schema
from analysis.data import GridData
from analysis.plan_record import encode_plan
from analysis.search import selected

CODE = "c0de0001"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
START = 1_700_000_000_000  # ms
HEADS = ("main", "side1", "side2")
PAIRS = [f"{a}.{b}" for a, b in itertools.combinations(HEADS, 2)]


def variant(
    name: str, method: str, factors: dict[str, Any], *, shift: float = 0.0, role: str = "arm", arch: str = "resnet8"
) -> dict[str, Any]:
    """A variant as a plan records it, and `shift`: how far its error lies from the baseline's, in points."""
    recipe_id = f"{zlib.crc32(name.encode()):08x}"
    record = {"name": name, "recipe_id": recipe_id, "role": role, "method": method, "arch": arch}
    return {**record, "factors": factors, "shift": shift}


def branch_positions() -> list[dict[str, Any]]:
    shifts = {"dsl": {"1": -0.4, "2": -0.9, "1+2": -1.2}, "dhm": {"1": -0.6, "2": 1.6, "1+2": -2.6}}
    arms = [
        variant(f"{method} at {where}", method, {"method": method, "positions": where}, shift=shift)
        for method, by_place in shifts.items()
        for where, shift in by_place.items()
    ]
    return [variant("plain", "plain", {"method": "plain", "positions": None}, role="baseline"), *arms]


def mimicking_weights() -> list[dict[str, Any]]:
    arms = [
        variant(
            f"dhm alpha {alpha:g} T {t:g}",
            "dhm",
            {"method": "dhm", "mimic.alpha": alpha, "mimic.temperature": t},
            shift=-2.0 * math.exp(-(math.log2(max(alpha, 0.06)) ** 2) / 4) - 0.3 * (t == 2.0),
        )
        for alpha, t in itertools.product((0.0, 0.1, 0.5, 1.0, 2.0, 5.0), (1.0, 2.0, 4.0))
    ]
    return [
        variant("dsl", "dsl", {"method": "dsl", "mimic.alpha": None, "mimic.temperature": None}, role="baseline"),
        *arms,
    ]


def depths() -> list[dict[str, Any]]:
    found = []
    for arch, offset in (("resnet8", 0.0), ("resnet14", -3.0), ("resnet20", -4.0)):
        blank = {"arch": arch, "method": "plain", "branch_depth": None}
        found.append(variant(f"plain {arch}", "plain", blank, shift=offset, role="baseline", arch=arch))
        for method, depth in itertools.product(("dsl", "dhm"), (0.5, 1, 2)):
            factors = {"arch": arch, "method": method, "branch_depth": depth}
            shift = offset - 0.8 * math.log2(1 + depth) - (0.4 if method == "dhm" else 0.0)
            found.append(variant(f"{method} {arch} depth {depth:g}", method, factors, shift=shift, arch=arch))
    return found


def methods() -> list[dict[str, Any]]:
    return [
        variant("plain", "plain", {"method": "plain"}, role="baseline"),
        variant("dsl", "dsl", {"method": "dsl"}, shift=-1.0),
        variant("dhm", "dhm", {"method": "dhm"}, shift=-2.0),
    ]


GRIDS = {
    "branch_positions": (branch_positions, ["training_curves", "positions"]),
    "mimicking_weights": (mimicking_weights, ["training_curves", "weights"]),
    "depths": (depths, ["training_curves", "levels"]),
    "methods": (methods, ["training_curves", "methods"]),
}


def plan_record(grid: str, *, plan_id: str, seeds: int = 5, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """The plan of one of GRIDS. Its variants have a `shift` beside what the schema names."""
    make, figures = GRIDS[grid]
    variants = make()
    names = dict.fromkeys(name for item in variants for name in item["factors"])
    factors = {
        name: list(dict.fromkeys(v["factors"][name] for v in variants if v["factors"][name] is not None))
        for name in names
    }
    return {
        "plan_id": plan_id,
        "grid": grid,
        "benchmark": "digits",
        "title": grid.replace("_", " ").capitalize(),
        "question": f"What do {grid.replace('_', ' ')} change?",
        "reading": "Group by `variant`.",
        "overrides": list(overrides),
        "extent": [],
        "data_words": "10 classes, 200 training and 797 test images",
        "factors": factors,
        "baseline": variants[0]["name"],
        "seeds": list(range(seeds)),
        "code": CODE,
        "data": "da7a0001",
        "updated": START / 1000,
        "figures": figures,
        "variants": variants,
    }


def experiment_id(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)


def write_plan(client: MlflowClient, plan: dict[str, Any]) -> str:
    """Keep the plan with its experiment, and return the experiment's id."""
    found = experiment_id(client, f"{plan['benchmark']}/{plan['grid']}")
    kept = [{key: value for key, value in item.items() if key != "shift"} for item in plan["variants"]]
    for key, value in encode_plan({**plan, "variants": kept}).items():
        client.set_experiment_tag(found, key, value)
    return found


def write_cell(
    client: MlflowClient, plan: dict[str, Any], item: dict[str, Any], seed: int, *, epochs: int = 15, **changes: Any
) -> str:
    """Record one cell and return its run id. `changes`: `status`, or tags to set otherwise (None drops one)."""
    status = changes.pop("status", "FINISHED")
    draw = random.Random(f"{item['name']} {seed}")
    # One part of the error belongs to the seed and is shared by all arms, as paired arms share it.
    final = 14.0 + item["shift"] + random.Random(seed).gauss(0, 0.9) + draw.gauss(0, 0.5)
    curve = [final + 70 * math.exp(-1.1 * epoch) + draw.gauss(0, 0.4) * (epoch < epochs - 1) for epoch in range(epochs)]
    curve[-1] = final
    branches = {"plain": 0, "dsl": 2, "dhm": 2}[item["method"]]
    single = {
        schema.FINAL_TOP1: final,
        schema.BEST_TOP1: min(curve),
        schema.BEST_EPOCH: float(curve.index(min(curve))),
        schema.PARAMETERS: 77_754 * (1 + 1.4 * branches),
        schema.PARAMETERS_MAIN: 77_754,
        schema.FLOPS: 0.79 * (1 + 0.8 * branches),
        schema.FLOPS_MAIN: 0.79,
        schema.STEP_MS: 6.0 * (1 + 0.7 * branches) + draw.random(),
        schema.SECONDS: 1.2 * (1 + 0.7 * branches) + draw.random(),
    }
    tags = {
        schema.CELL_ID: f"{item['recipe_id']}-s{seed}",
        schema.RECIPE_ID: item["recipe_id"],
        schema.PLAN: plan["plan_id"],
        schema.GRID: plan["grid"],
        schema.BENCHMARK: plan["benchmark"],
        schema.VARIANT: item["name"],
        schema.ROLE: item["role"],
        schema.SEED: str(seed),
        schema.METHOD: item["method"],
        schema.ARCH: item["arch"],
        schema.COMMIT: COMMIT,
        schema.DIRTY: "false",
        schema.CODE: CODE,
        schema.DATA: plan["data"],
        schema.ATTEMPTS: "1",
        **changes,
    }
    experiment = experiment_id(client, f"{plan['benchmark']}/{plan['grid']}")
    run = client.create_run(experiment, start_time=START + seed, run_name=f"{item['name']} s{seed}")
    metrics = [Metric(schema.TEST_TOP1, value, START + step, step) for step, value in enumerate(curve)]
    if status == "FINISHED":
        metrics += [Metric(name, value, START + epochs, 0) for name, value in single.items()]
    params = {**item["factors"], schema.VARIANT: item["name"], schema.SEED: seed, schema.EPOCHS: epochs}
    client.log_batch(
        run.info.run_id,
        metrics,
        [Param(name, str(value)) for name, value in params.items() if value is not None],
        [RunTag(name, value) for name, value in tags.items() if value is not None],
    )
    if status != "RUNNING":
        client.set_terminated(run.info.run_id, status, end_time=START + 60_000)
    return str(run.info.run_id)


def write_grid(client: MlflowClient, plan: dict[str, Any], **options: Any) -> dict[tuple[str, int], str]:
    """Record a plan with all its cells done, and return their run ids."""
    write_plan(client, plan)
    return {
        (item["name"], seed): write_cell(client, plan, item, seed, **options)
        for item in plan["variants"]
        for seed in plan["seeds"]
    }


def searched(grid: GridData, count: int = 30) -> GridData:
    """A grid of alpha and T as if a search had found one of its arms."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        alpha, temperature = 0.05 * 100 ** draw.random(), 0.5 * 16 ** draw.random()
        pruned = number % 5 == 4
        error = 12 + 3 * abs(math.log(alpha)) + draw.random() + 20 * pruned
        state, epochs = (coverage.PRUNED, 9) if pruned else (coverage.DONE, 20)
        rows.append((f"run{number}", state, number, CODE, epochs, error, alpha, temperature))
    names = ["run_id", "state", schema.TRIAL_NUMBER, schema.CODE, schema.EPOCHS, schema.VAL_TOP1]
    trials = pd.DataFrame(rows, columns=[*names, "mimic.alpha", "mimic.temperature"])
    best = selected(trials)
    search = {
        "search_id": "5ea4c4",
        "space": {"mimic.alpha": [0.05, 5.0, True], "mimic.temperature": [0.5, 8.0, True]},
        "seed": 1000,
        "held_out": 0.2,
        "pruner": "median",
        "trials": count,
        "selected": best and best[schema.TRIAL_NUMBER],
        "importance": {"mimic.alpha": 0.81, "mimic.temperature": 0.19},
    }
    return dataclasses.replace(grid, plan=dataclasses.replace(grid.plan, search=search), trials=trials)


def measured(grid: GridData, epochs: int = 6) -> GridData:
    """A grid whose cells with side branches have diagnostics as well."""
    draw = np.random.default_rng(0)
    runs, points = grid.runs.copy(), []
    for place, row in runs[runs[schema.METHOD] != "plain"].iterrows():
        for a, b in itertools.permutations(HEADS, 2):
            runs.loc[place, f"{schema.INITIAL_KL}/{a}.{b}"] = draw.uniform(0.1, 0.2)
            runs.loc[place, f"{schema.KL}/{a}.{b}"] = draw.uniform(0.001, 0.08)
        for pair in PAIRS:
            runs.loc[place, f"{schema.AGREEMENT}/{pair}"] = draw.uniform(80, 100)
            for epoch in range(epochs):
                ce = draw.uniform(0, 0.8)
                whole = ce if row[schema.METHOD] == "dsl" else ce - 0.5
                points += [
                    (row["run_id"], f"{kind}/{pair}", epoch, value)
                    for kind, value in ((schema.GRADIENT_COSINE_CE, ce), (schema.GRADIENT_COSINE, whole))
                ]
    curves = pd.DataFrame(points, columns=["run_id", "metric", "epoch", "value"])
    return dataclasses.replace(grid, runs=runs, curves=curves)


def topology(positions: str, method: str, arch: str = "resnet8") -> dict[str, Any]:
    """A network of three stages with a branch after each of some: "1+2"."""
    places = [int(place) for place in positions.split("+") if place]
    heads = ["main", *(f"side{place}" for place in places)]
    pairs = [[a, b, 1.0] for a, b in itertools.permutations(heads, 2)] if method == "dhm" else []
    fork = {"block": 0, "fork_probability": 1.0, "parameters": 70_154}
    return {
        "arch": arch,
        "method": method,
        "num_classes": 10,
        "stages": [{"channels": 16 * 2**index, "stride": 2**index, "blocks": 1} for index in range(3)],
        "branches": [
            {"head": f"side{place}", "after": place, "blocks": [2] * (3 - place), "width": float(place), **fork}
            for place in places
        ],
        "heads": heads,
        "pairs": pairs,
        "parameters_main": 77_754,
    }


def drawn(grid: GridData) -> GridData:
    """A grid of branch positions whose networks are recorded."""
    networks = {v.name: topology(str(v.factors["positions"] or ""), v.method) for v in grid.plan.variants}
    return dataclasses.replace(grid, topologies=networks)
