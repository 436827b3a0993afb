from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dhm.backbones import ARCHITECTURES
from dhm.data import StreamedData
from dhm.fields import identity
from experiments import config
from experiments.benchmarks import BENCHMARKS
from experiments.pools import arrange
from experiments.run import main
from experiments.stores import Stores
from experiments.study import Request, make_plan

IMAGENET = BENCHMARKS.get("imagenet")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of two images, `train/WNID` and `val/WNID`."""
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("n1", "n2"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for index in range(2):
                image = Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8))
                image.save(tmp_path / "images" / split / name / f"{index}.JPEG")
    return tmp_path / "images"


def test_imagenet_is_trained_as_the_authors_document() -> None:
    recipe = IMAGENET.base("resnet152")
    assert identity(recipe.optim) == {"milestones": [31, 61], "batch_size": 256}
    assert (recipe.optim.lr, recipe.optim.gamma, recipe.optim.momentum, recipe.optim.weight_decay) == (
        0.1,
        0.1,
        0.9,
        1e-4,
    )
    assert (recipe.epochs, recipe.dropout, recipe.data.flip) == (90, 0.0, True)
    assert (recipe.data.augment, recipe.data.image_size, recipe.data.resize) == ("resized_crop", 224, 256)
    assert (recipe.data.mean, recipe.data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert [branch.after for branch in recipe.branches] == [2, 3]


@pytest.mark.parametrize("benchmark", BENCHMARKS.names())
@pytest.mark.parametrize("arch", ["resnet8", "resnet18", "wrn_16_8", "densenet_40_12"])
def test_every_family_has_a_recipe_everywhere_and_says_whose(benchmark: str, arch: str) -> None:
    made = BENCHMARKS.get(benchmark)
    assert made.base(arch).arch == arch
    told = made.source(arch)
    family = ARCHITECTURES.get(arch).family.__name__
    if benchmark in ("cifar10", "cifar100", "imagenet"):
        assert ("none for this family" in told) == ((family == "ImageNetResNet") != (benchmark == "imagenet"))


def test_a_plan_of_imagenet_streams_and_knows_the_cost_of_its_crops(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = Request(grid="methods", benchmark="imagenet", data_root=root)
    plan, data = make_plan(request, Stores(root=tmp_path / "store"))
    assert isinstance(data, StreamedData)
    assert data.image_shape == (224, 224)
    assert plan.fingerprint == data.fingerprint
    shown = main(
        ["grid=methods", "benchmark=imagenet", f"data.root={root}", f"store={tmp_path / 'store'}", "plan=true"]
    )
    assert shown == 0
    assert "15 missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.augment=shift"], ["benchmark digits is embedded", "image_folder", "leave data.root out"]),
        (["benchmark=image_folder", "data.augment=resized_crop"], ["data.image_size=224"]),
        (["benchmark=imagenet", "data.image_size=300"], ["data.resize=256", "data.image_size=300"]),
        (["benchmark=imagenet", "data.train_size=9"], ["data.train_size=9"]),
        (["benchmark=imagenet", "pool.workers=-1"], ["pool.workers=-1"]),
    ],
)
def test_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: list[str]
) -> None:
    assert main(["grid=methods", f"data.root={root}", f"store={tmp_path / 'store'}", *words]) == 2
    message = capsys.readouterr().err.strip()
    assert len(message.splitlines()) == 1
    assert all(word in message for word in expected), message


def test_a_grid_cannot_vary_what_is_read(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sizes.yaml").write_text(
        "question: Which size?\nfactors:\n  method: [plain]\n  data.image_size: [64, 96]\nbaseline: {method: plain}\n"
    )
    words = [f"grid_dir={tmp_path}", "grid=sizes", "benchmark=imagenet", f"data.root={root}", "plan=true"]
    assert main([*words, f"store={tmp_path / 'store'}"]) == 2
    assert "data.image_size changes which images are read" in capsys.readouterr().err


def test_workers_share_the_cores_beside_gpus_and_leave_a_cpu_to_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("experiments.pools.local._cores", lambda: 16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def workers(*words: str) -> int:
        return arrange(config.pool_of(config.read(words)), replicas=1).workers

    on_gpus, on_cpus = "pool.slots_per_gpu=2", "pool.gpus=none"
    assert (workers(on_gpus), workers(on_cpus)) == (4, 0)
    assert (workers(on_gpus, "pool.workers=7"), workers(on_cpus, "pool.workers=7")) == (7, 7)
