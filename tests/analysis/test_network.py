import copy
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ArrowStyle, FancyArrowPatch, FancyBboxPatch
from mlflow import MlflowClient

from analysis import build, reading, schema, store
from analysis.data import GridData
from analysis.figures import network
from dhm.cost import topology
from dhm.recipe import BranchSpec, MimicSpec, PairSpec, Recipe
from experiments.benchmarks import BENCHMARKS
from tests.analysis import synthetic


def panels(figure: Figure) -> list[Axes]:
    return list(figure.axes)


def written(axes: Axes) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in axes.texts]


def arcs(axes: Axes) -> list[FancyArrowPatch]:
    """The arrows between heads, which alone are curved."""
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    return [arrow for arrow in arrows if len(arrow._path_original.vertices) == 4 and arrow._path_original.codes[1] == 4]


@pytest.fixture(scope="module")
def grid(uri: str) -> GridData:
    plan = next(plan for plan in store.plans(uri) if plan.plan_id == "branch_positions-1")
    return synthetic.drawn(reading.load(uri, plan))


def test_each_network_is_drawn_once_with_all_that_sets_it_apart(grid: GridData) -> None:
    figure = network.build(grid)
    assert [axes.get_title() for axes in panels(figure)] == ["dhm at 1", "dhm at 2", "dhm at 1+2"]
    first, second, both = panels(figure)
    assert {"main", "side1"} < set(written(first)) and "side2" not in written(first)
    assert written(second).count("2× wide") == 1 and written(second).count("2 blocks") == 1
    assert {"main", "side1", "side2"} < set(written(both))
    assert [len(arcs(axes)) for axes in panels(figure)] == [1, 1, 3]


def test_deep_supervision_is_drawn_where_there_is_no_mimicking(grid: GridData) -> None:
    kept = {name: shape for name, shape in grid.topologies.items() if not name.startswith("dhm")}
    figure = network.build(dataclasses.replace(grid, topologies=kept))
    assert [axes.get_title() for axes in panels(figure)] == ["dsl at 1", "dsl at 2", "dsl at 1+2"]
    assert not any(arcs(axes) for axes in panels(figure))
    keys = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert keys == ["main branch", "side branch, in training only"]


def test_one_network_stands_in_a_column_and_says_whose_it_is(grid: GridData) -> None:
    same = dict.fromkeys(grid.plan.names, grid.topologies["dhm at 1+2"])
    figure = network.build(dataclasses.replace(grid, topologies=same))
    assert len(panels(figure)) == 1 and figure.get_figwidth() < 4
    assert figure.legends[0].get_title().get_text() == "drawn: plain"


def test_more_networks_than_a_figure_holds_are_counted(grid: GridData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "ROOM", 2)
    figure = network.build(grid)
    assert len(panels(figure)) == 2
    assert figure.legends[0].get_title().get_text() == "and 1 more"


def test_without_a_topology_the_figure_says_what_is_missing(grid: GridData) -> None:
    with pytest.raises(ValueError, match=r"no run of digits/branch_positions has its topology\.json"):
        network.build(dataclasses.replace(grid, topologies={}))


def arrow_ends(axes: Axes) -> set[tuple[float, float, bool]]:
    """Rows from and to which mimicking arrows go, and whether they go both ways."""
    found = set()
    for arrow in arcs(axes):
        (_, start), *_, (_, end) = arrow._path_original.vertices
        found.add((round(start), round(end), type(arrow.get_arrowstyle()) is ArrowStyle.CurveFilledAB))
    return found


def test_arrows_go_from_teacher_to_student(grid: GridData) -> None:
    shape = copy.deepcopy(grid.topologies["dhm at 1+2"])
    rows = {"main": 0, "side2": -1, "side1": -2}  # the later a branch forks the nearer to the main branch
    (axes,) = panels(network.draw(shape))
    assert arrow_ends(axes) == {
        (rows[a], rows[b], True) for a, b in (("main", "side2"), ("main", "side1"), ("side2", "side1"))
    }
    one_way: dict[str, Any] = {
        **shape,
        "pairs": [["main", "side1", 1.0], ["main", "side2", 1.0], ["side1", "side2", 0.0]],
    }
    (axes,) = panels(network.draw(one_way))
    assert arrow_ends(axes) == {(rows["side1"], rows["main"], False), (rows["side2"], rows["main"], False)}
    uneven = {**shape, "pairs": [["main", "side1", 1.0], ["side1", "main", 0.5]]}
    (axes,) = panels(network.draw(uneven))
    assert arrow_ends(axes) == {(-2, 0, False), (0, -2, False)}
    assert {"1", "0.5"} <= set(written(axes))


ODD = (
    BranchSpec(after=1, blocks=(2, 2)),
    BranchSpec(after=2, block=1, blocks=(1, 2), fork_probability=0.5),
    BranchSpec(after=2, blocks=(2,), width=2.0),
)
LISTED = MimicSpec(pairs="listed", listed=(PairSpec(student="main", teacher="side1"),))


def recipes() -> dict[str, Recipe]:
    return {
        "released": dataclasses.replace(BENCHMARKS.get("cifar100").base("resnet110"), mimic=MimicSpec()),
        "imagenet": BENCHMARKS.get("imagenet").base("resnet152"),
        "odd": dataclasses.replace(BENCHMARKS.get("digits").base("resnet14"), branches=ODD, mimic=LISTED),
        "plain": dataclasses.replace(BENCHMARKS.get("digits").base("resnet8"), branches=(), mimic=None),
        "torchvision": BENCHMARKS.get("cifar100").base("torchvision/vgg11"),
    }


@pytest.mark.parametrize("name", recipes())
def test_any_recipe_can_be_drawn_and_nothing_in_it_is_written_over_anything(name: str) -> None:
    recipe = recipes()[name]
    shape = topology(recipe, channels=3, num_classes=10)
    figure = network.draw(shape)
    assert figure.get_suptitle() == f"{recipe.arch}, {recipe.method}"
    figure.canvas.draw()
    (axes,) = panels(figure)
    boxes = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    assert len(boxes) == len(shape["stages"]) + sum(len(b["blocks"]) for b in shape["branches"]) + len(shape["heads"])
    extents = [box.get_window_extent() for box in boxes]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(extents, 2))
    renderer = figure.canvas.get_renderer()
    for text in axes.texts:
        inside = text.get_window_extent(renderer)
        assert figure.bbox.x0 <= inside.x0 and inside.x1 <= figure.bbox.x1 and inside.y0 >= 0
    lines = [text.get_window_extent(renderer) for text in axes.texts if "stage" in text.get_text()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(lines, 2))
    if name == "odd":
        assert "p = 0.5" in written(axes)


def test_a_build_draws_what_the_runs_recorded(tmp_path: Path, uri: str) -> None:
    (tmp_path / "mlflow.db").write_bytes(Path(uri.removeprefix("sqlite:///")).read_bytes())
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=address)
    plan = {**synthetic.plan_record("methods", plan_id="net", seeds=2), "benchmark": "other", "figures": ["network"]}
    client.create_experiment("other/methods", artifact_location=(tmp_path / "artifacts").as_uri())
    runs = synthetic.write_grid(client, plan)
    for (name, _), run_id in runs.items():
        shape = synthetic.topology("" if name == "plain" else "1+2", name)
        client.log_dict(run_id, shape, schema.TOPOLOGY_FILE)
    (result,) = build.build(address, tmp_path / "out", ["net"])
    assert result.refusals == ()
    assert (tmp_path / "out/other/methods/network.pdf").is_file()
    frame = store.runs(address).query("plan == 'net'")
    found = store.topologies(address, frame)
    assert len(found) == 6 and found[runs["dhm", 1]] == synthetic.topology("1+2", "dhm")
    for path in (tmp_path / "artifacts").rglob(schema.TOPOLOGY_FILE):
        path.unlink()
    assert store.topologies(address, frame) == {}
    (result,) = build.build(address, tmp_path / "out", ["net"])
    assert "has its topology.json; the artifacts were moved" in result.refusals[0]
