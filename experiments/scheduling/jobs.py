"""From a cell to the job that a slot is handed."""

import dataclasses
from typing import Any

from analysis import schema
from dhm import cost
from dhm.data import DataSet
from dhm.diagnostics import Diagnostics
from dhm.recipe import Recipe
from dhm.training import Runtime
from experiments.costs import cost_of
from experiments.grid import Cell
from experiments.pool import Slot
from experiments.recording.opening import Opening
from experiments.recording.provenance import Provenance
from experiments.recording.recorder import RecordInfo
from experiments.scheduling.options import Options
from experiments.stores import Stores
from experiments.trial import Job


class Jobs:
    """Makes jobs of cells.

    Args:
        data: the data set, as the scheduler has loaded it: its sizes are what costs depend on.
    """

    def __init__(self, data: DataSet, stores: Stores, provenance: Provenance, options: Options) -> None:
        self._data, self._stores, self._provenance, self._options = data, stores, provenance, options
        self._networks: dict[Recipe, tuple[cost.Cost, dict[str, Any]]] = {}

    def make(self, cell: Cell, slot: Slot, opening: Opening, *, shared: bool) -> Job:
        """The job of a cell in a slot.

        Args:
            opening: what its record begins with.
            shared: whether a record of another study will do.
        """
        recipe, options = cell.variant.recipe, self._options
        measured, topology = self._network(recipe)
        environment = {
            **self._provenance.environment,
            "threads": options.runtime.threads,
            "slot": slot.name,
            "deterministic": options.runtime.deterministic,
            "diagnostics": next((c.settings for c in options.callbacks if isinstance(c, Diagnostics)), None),
        }
        return Job(
            cell_id=cell.cell_id,
            code=self._provenance.code,
            recipe=recipe,
            seed=cell.seed,
            runtime=self.runtime(
                slot, checkpoint=self._stores.checkpoint(cell.cell_id, self._provenance.code), parts=cell.parts
            ),
            record=RecordInfo(
                tracking_uri=self._stores.tracking_uri,
                opening=opening,
                cost=measured,
                files={
                    schema.RECIPE_FILE: cell.document,
                    schema.TOPOLOGY_FILE: topology,
                    schema.ENVIRONMENT_FILE: environment,
                },
                patch=self._provenance.patch,
            ),
            lock=self._stores.lock(cell.cell_id),
            # They look at test images.
            callbacks=options.callbacks if "test" in cell.parts else (),
            judged_by=cell.judged_by,
            patience=options.patience,
            shared=shared,
        )

    def runtime(self, slot: Slot, **own: Any) -> Runtime:
        """The runtime of a run in a slot."""
        return dataclasses.replace(self._options.runtime, device=slot.device, cache=self._stores.cache, **own)

    def _network(self, recipe: Recipe) -> tuple[cost.Cost, dict[str, Any]]:
        """What a recipe's network costs, and its topology; the same for all seeds."""
        if recipe not in self._networks:
            shape = {"channels": self._data.channels, "num_classes": self._data.num_classes}
            self._networks[recipe] = cost_of(recipe, self._data, self._stores), cost.topology(recipe, **shape)
        return self._networks[recipe]
