"""The epoch that is measured is a whole one: its checkpoint and its record are there."""

import dataclasses
from pathlib import Path

from mlflow.tracking import MlflowClient

from analysis import schema
from benchmarks.epoch import OurEpoch
from benchmarks.training import images, recipe_of
from dhm import checkpoint
from experiments.stores import Stores


def test_an_epoch_is_saved_and_recorded(tmp_path: Path) -> None:
    recipe = dataclasses.replace(recipe_of("resnet32", 8), arch="resnet8")
    epoch = OurEpoch("ours", recipe, images(16), 1, tmp_path)
    epoch()
    epoch()
    assert len(checkpoint.load(tmp_path / "ours.ckpt")["history"]) == 2
    client = MlflowClient(Stores(root=tmp_path).tracking_uri)
    (run,) = client.search_runs([found.experiment_id for found in client.search_experiments()])
    points = client.get_metric_history(run.info.run_id, schema.TRAIN_LOSS)
    assert [point.step for point in points] == [0, 1]
    assert len(epoch.tracking) == 2 and min(epoch.tracking) > 0
