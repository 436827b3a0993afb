import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dhm.data import DataError, RunImages, load
from dhm.engine import fit
from dhm.fields import identity
from dhm.recipe import DataSpec, OptimSpec, Recipe
from dhm.training import Callback, Runtime, Training
from tests.dhm.test_streaming import joined

PILLOW = DataSpec(
    name="image_folder", augment="resized_crop", image_size=24, resize=32, mean=(0.0,) * 3, std=(1 / 255,) * 3
)
DALI = dataclasses.replace(PILLOW, decoder="dali")
LEVELS = 2  # of 255, by which resizing may differ: Pillow rounds twice


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """JPEGs and PNGs of noise in several shapes, grey ones among them."""
    shapes = ((60, 81), (81, 60), (33, 35), (24, 130))
    for split in ("train", "val"):
        for label, name in enumerate(("ant", "bee")):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for index, shape in enumerate(shapes):
                pixels = np.random.default_rng([label, index]).integers(0, 256, (*shape, 3), dtype=np.uint8)
                image = Image.fromarray(pixels).convert("L" if index == 1 else "RGB")
                image.save(folder / f"{index}.{'png' if index == 2 else 'jpg'}")
    return tmp_path / "set"


def opened(
    root: Path, spec: DataSpec = DALI, *, batch_size: int = 3, workers: int = 0, device: str = "cpu"
) -> RunImages:
    return load(spec, root).open(spec, 0, batch_size=batch_size, workers=workers, device=device)


def test_it_belongs_to_the_recipe_and_by_default_no_identity_knows_of_it() -> None:
    assert "decoder" not in identity(PILLOW)
    assert identity(DALI)["decoder"] == "dali"
    with pytest.raises(ValueError, match=r"unknown data\.decoder 'dalli'. Did you mean 'dali'"):
        dataclasses.replace(PILLOW, decoder="dalli")


def test_where_it_is_not_installed_the_error_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(DataError, match=r"pip install 'dhm-ablation\[dali\]'"):
        load(DALI, root)


def test_images_that_are_read_before_training_are_not_its_business(root: Path) -> None:
    with pytest.raises(DataError, match=r"data\.augment=shift .* give data\.augment=resized_crop"):
        load(dataclasses.replace(DALI, augment="shift", resize=0), root)


class TestInstalled:
    @pytest.fixture(autouse=True)
    def dali(self) -> None:
        pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is an extra")

    def test_crops_flips_order_and_labels_are_those_of_pillow(self, root: Path) -> None:
        ours, pillows = opened(root), opened(root, PILLOW)
        for seed, epoch in ((0, 0), (0, 1), (1, 0)):
            (images, labels), (expected, truths) = (joined(run.train.epoch(seed, epoch)) for run in (ours, pillows))
            assert torch.equal(labels, truths)
            inner = (images - expected)[:, :, 1:-1, 1:-1]  # a crop's edge is repeated here, and left out by Pillow
            assert inner.abs().max() <= LEVELS + 0.01

    def test_evaluation_sees_the_centre_that_pillow_sees(self, root: Path) -> None:
        (images, labels), (expected, truths) = (joined(opened(root, spec).test.batches(100)) for spec in (DALI, PILLOW))
        assert torch.equal(labels, truths)
        assert (images - expected).abs().max() <= LEVELS + 0.01

    def test_threads_batch_size_and_layout_change_nothing(self, root: Path) -> None:
        images, labels = joined(opened(root).train.epoch(0, 1))
        for workers, batch_size in ((1, 3), (2, 8), (3, 5)):
            again = joined(opened(root, batch_size=batch_size, workers=workers).train.epoch(0, 1))
            assert torch.equal(again[0], images) and torch.equal(again[1], labels)
        run = load(DALI, root).open(DALI, 0, batch_size=3, channels_last=True)
        assert torch.equal(joined(run.train.epoch(0, 1))[0], images)

    @pytest.mark.parametrize("content", [b"no image", None], ids=["another file", "cut short"])
    def test_a_file_that_cannot_be_read_is_one_line_that_names_it(self, root: Path, content: bytes | None) -> None:
        path = root / "val" / "bee" / "0.jpg"
        path.write_bytes(content or path.read_bytes()[:-300])
        with pytest.raises(DataError, match=r"val/bee/0.jpg cannot be read as an image") as caught:
            joined(opened(root).test.batches(100))
        assert "\n" not in str(caught.value)

    def test_a_file_that_pillow_alone_can_read_says_so(self, root: Path) -> None:
        Image.new("RGB", (40, 40)).save(root / "val" / "bee" / "0.jpg", format="GIF")
        with pytest.raises(DataError, match=r"Pillow can: leave data\.decoder out") as caught:
            joined(opened(root).test.batches(100))
        assert "\n" not in str(caught.value)

    def test_a_run_resumes_to_the_bit_whatever_its_threads(self, root: Path, tmp_path: Path) -> None:
        recipe = Recipe(
            arch="resnet8",
            epochs=2,
            data=dataclasses.replace(DALI, mean=(), std=()),
            optim=OptimSpec(lr=0.05, batch_size=4),
        )
        whole = fit(recipe, 0, Runtime(data_root=root))
        runtime = Runtime(data_root=root, checkpoint=tmp_path / "run.ckpt", workers=2)
        with pytest.raises(_StopError):
            fit(recipe, 0, runtime, [Stop()])
        resumed = fit(recipe, 0, dataclasses.replace(runtime, workers=1))
        assert [record.metrics for record in resumed.history] == [record.metrics for record in whole.history]
        for name, tensor in whole.network.state_dict().items():
            assert torch.equal(tensor, resumed.network.state_dict()[name]), name

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    def test_a_gpu_resizes_alike(self, root: Path) -> None:
        (images, labels), (expected, truths) = (
            joined(opened(root, device=device).train.epoch(0, 0)) for device in ("cuda", "cpu")
        )
        assert images.is_cuda and torch.equal(labels.cpu(), truths)
        assert (images.cpu() - expected).abs().max() <= LEVELS + 0.01


class _StopError(Exception):
    pass


class Stop(Callback):
    """Leaves in the second epoch, at its first step."""

    def on_step(self, training: Training) -> None:
        if training.epoch == 1:
            raise _StopError
