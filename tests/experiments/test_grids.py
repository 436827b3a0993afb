"""Every grid from the command line to its tables and figures, on `digits`; the one of ImageNet on a few photographs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import experiments.grids  # noqa: F401  the registry is filled by importing
from analysis import catalogue, schema
from analysis import store as reader
from experiments.grid import GRIDS
from tests.experiments.conftest import Workplace

SUFFIXES = {"table": (".md", ".csv", ".tex", ".json"), "figure": (".png", ".pdf", ".json")}
# Fewer levels where there are many; what another grid has trained already is copied.
FEWER = {
    "architectures": ["factors.arch=[resnet8,densenet_10_6]"],
    "branch_positions": ["factors.positions=['1','1+2']"],
    "fork_probability": ["factors.fork_probability=[0.0,0.5,1.0]"],
    "mimicking_pairs": ["factors.mimic.pairs=[all,sides_to_main]"],
    "training_size": ["factors.data.train_size=[50,100]"],
    "depths": ["factors.arch=[resnet8]"],
    "label_noise": ["factors.data.label_noise=[0.0,0.4]"],
    "mimicking_weights": ["factors.mimic.alpha=[0.5,1.0]"],
    "mimicking_weight_search": ["study.trials=2"],
    "imagenet": ["factors.arch=[resnet8,resnet14]"],
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("grids"))
    place.store.mkdir()
    (place.store / "mlflow.db").write_bytes(empty_database.read_bytes())
    return place


def assert_built(place: Workplace, benchmark: str, grid: str) -> None:
    """All cells of the one plan of a grid are recorded, and its tables and figures are written."""
    (plan,) = (plan for plan in reader.plans(place.uri) if plan.grid == grid)
    frame = reader.runs(place.uri, plan)
    assert sorted(frame["status"]) == ["FINISHED"] * len(plan.variants)
    assert set(frame[schema.VARIANT]) == set(plan.names)
    assert frame[schema.FINAL_TOP1].between(0, 100).all()
    (folder,) = (path for path in (place.root / "results" / benchmark).iterdir() if path.name.startswith(f"{grid}-"))
    names = {"table": catalogue.tables_of(plan), "figure": plan.figures}
    for kind, suffixes in SUFFIXES.items():
        for name in names[kind]:
            for suffix in suffixes:
                assert (folder / f"{name}{suffix}").stat().st_size > 0, f"{name}{suffix}"


@pytest.mark.parametrize("name", GRIDS.names())
def test_every_grid_ends_in_its_tables_and_figures(name: str, shared: Workplace) -> None:
    words = ["optim.batch_size=20", "seeds=1", "epochs=1", *FEWER.get(name, [])]
    if "data.train_size" not in GRIDS.get(name).factors:
        words.append("data.train_size=100")
    assert shared.run(f"grid={name}", *words) == 0
    assert_built(shared, "digits", name)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Shaded pictures of an object on a ground, of the sizes that photographs have, in folders by WordNet id."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for label, wnid in enumerate(("n01440764", "n02102040")):
            folder = tmp_path / "images" / split / wnid
            folder.mkdir(parents=True)
            for index in range(count):
                height, width = (int(side) for side in draws.integers(260, 400, 2))
                y, x = np.mgrid[:height, :width] / max(height, width)
                centre, radius = draws.uniform(0.3, 0.6, 2), draws.uniform(0.1, 0.25)
                near = np.hypot(y - centre[0], x - centre[1]) if label else np.abs(y - centre[0]) + abs(x - centre[1])
                scene = draws.uniform(60, 160, 3) * (0.5 + y[..., None])
                scene[near < radius] = draws.uniform(100, 255, 3)
                pixels = (scene + draws.normal(0, 8, scene.shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{wnid}_{index}.JPEG", quality=85)
    return tmp_path / "images"


def test_imagenet_on_a_few_photographs(workplace: Workplace, photographs: Path) -> None:
    words = ["factors.arch=[resnet18]", "seeds=1", "epochs=1", "optim.batch_size=8", "pool.cpu_slots=1"]
    assert workplace.run("grid=imagenet", "benchmark=imagenet", f"data.root={photographs}", *words) == 0
    assert_built(workplace, "imagenet", "imagenet")
    (plan,) = reader.plans(workplace.uri)
    assert [variant.name for variant in plan.variants] == ["resnet18 plain", "resnet18 dsl", "resnet18 dhm"]
