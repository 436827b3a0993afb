"""The beginning of a cell's record: a run makes it, or goes on with what earlier attempts left of it.

The scheduler hands over what a record begins with and writes nothing itself, so that it never waits for the store
before a cell may start. The lock on a cell sees to it that no two runs open its record at once.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.entities import Param, Run, RunStatus, RunTag

from analysis import schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opening:
    """What the record of a cell begins with.

    Args:
        run_id: of the record that earlier attempts left, where that is known.
    """

    experiment_id: str
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    run_id: str | None = None

    @property
    def attempt(self) -> int:
        """How often the cell was started, this time included."""
        return int(self.tags[schema.ATTEMPTS])

    def at(self, attempt: int, run_id: str | None) -> "Opening":
        """The same at a later attempt, with the record that the earlier ones left."""
        return dataclasses.replace(self, tags={**self.tags, schema.ATTEMPTS: str(attempt)}, run_id=run_id)


CHANGED = (schema.ATTEMPTS, schema.COMMIT, schema.OWNER)  # tags that each attempt writes


def records(client: Any, opening: Opening, *, everywhere: bool) -> Sequence[Run]:
    """The records of a cell, or of a trial: those of its experiment, or of all plans."""
    identity = schema.CELL_ID if schema.CELL_ID in opening.tags else schema.TRIAL_ID
    experiments = [opening.experiment_id]
    if everywhere:
        experiments = [found.experiment_id for found in client.search_experiments()]
    found: Sequence[Run] = client.search_runs(experiments, f"tags.{identity} = '{opening.tags[identity]}'")
    return found


def own(found: Sequence[Run], opening: Opening) -> Run | None:
    """The record that earlier attempts left, of those that `records` found."""
    by_id = {run.info.run_id: run for run in found}
    if opening.run_id in by_id:
        return by_id[opening.run_id]
    plan = opening.tags[schema.PLAN]
    return next((run for run in found if run.data.tags.get(schema.PLAN) == plan), None)


def create(client: Any, opening: Opening) -> str:
    """Begin a record; its run's id."""
    run = client.create_run(opening.experiment_id, run_name=opening.name, tags=dict(opening.tags))
    run_id = str(run.info.run_id)
    client.log_batch(run_id, params=[Param(name, value) for name, value in opening.params.items()])
    return run_id


def reopen(client: Any, run: Run, opening: Opening) -> None:
    """Go on with a record whose earlier attempt did not end well."""
    run_id = run.info.run_id
    for key in (schema.FAILURE, schema.FAILURE_MESSAGE):
        if key in run.data.tags:
            client.delete_tag(run_id, key)
    client.log_batch(run_id, tags=[RunTag(key, opening.tags[key]) for key in CHANGED])
    client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
