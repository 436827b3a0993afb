import dataclasses
import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import imagenet

from dhm.data import DataError, RawData, RunImages, StreamedData, fingerprint, load, pixels
from dhm.data.dataset import Batch, HeldOut, TrainingBatches
from dhm.engine import fit
from dhm.recipe import DataSpec, OptimSpec, Recipe
from dhm.training import Callback, Runtime, Training

SIZE = 12
SPEC = DataSpec(
    name="image_folder", augment="resized_crop", image_size=SIZE, resize=16, mean=(0.0,) * 3, std=(1 / 255,) * 3
)
SHIFT = dataclasses.replace(SPEC, augment="shift", pad=0, flip=False)
CLASSES = ("ant", "bee", "cat")
PER_CLASS = {"train": 6, "val": 3}


def noise(seed: int, height: int = 23, width: int = 31) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def write(root: Path, split: str, name: str, index: int, image: Image.Image) -> Path:
    path = root / split / name / f"{index}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images of noise, all different, `train/CLASS` and `val/CLASS`."""
    for split, count in PER_CLASS.items():
        for label, name in enumerate(CLASSES):
            for index in range(count):
                write(tmp_path / "set", split, name, index, noise(100 * label + index + 1000 * (split == "val")))
    return tmp_path / "set"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The same folders of images of one colour each, (label, index, split): however it is cropped, one knows it."""
    for split, count in PER_CLASS.items():
        for label, name in enumerate(CLASSES):
            for index in range(count):
                colour = (label, index, split == "val")
                write(tmp_path / "plain", split, name, index, Image.new("RGB", (31, 23), colour))
    return tmp_path / "plain"


def opened(root: Path, spec: DataSpec = SPEC, *, batch_size: int = 4, workers: int = 0, seed: int = 0) -> RunImages:
    return load(spec, root).open(spec, seed, batch_size=batch_size, workers=workers)


def joined(batches: Iterator[Batch]) -> Batch:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def colours(images: torch.Tensor) -> list[tuple[int, ...]]:
    assert all(len(image.flatten(1).unique(dim=1).T) == 1 for image in images)
    return [tuple(image[:, 0, 0].round().int().tolist()) for image in images]


class TestPixels:
    @pytest.mark.parametrize("shape", [(23, 31), (300, 200), (10, 200), (200, 10), (1, 1)])
    def test_a_random_view_is_torchvisions_draw_for_draw(self, shape: tuple[int, int]) -> None:
        image = noise(0, *shape)
        for seed in range(20):
            torch.manual_seed(seed)
            expected = transforms.RandomResizedCrop(16)(image)
            drawn = pixels.resized_crop(image, 16, pixels.crop_box(*shape, torch.Generator().manual_seed(seed)))
            assert np.array_equal(np.asarray(drawn), np.asarray(expected))

    def test_shapes_that_no_draw_fits_are_among_those(self) -> None:
        """So that the test above has seen the central crop that stands in for them."""
        boxes = [pixels.crop_box(10, 200, torch.Generator().manual_seed(seed)) for seed in range(20)]
        assert (0, 93, 10, 13) in boxes

    @pytest.mark.parametrize("size", [(23, 31), (31, 23), (256, 300)])
    def test_evaluation_sees_the_centre_after_a_resize(self, size: tuple[int, int]) -> None:
        image = noise(0, *size)
        expected = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(12)])(image)
        assert np.array_equal(np.asarray(pixels.to_square(image, 12, 16)), np.asarray(expected))


class TestBatches:
    def test_both_kinds_have_the_one_interface(self, root: Path) -> None:
        for spec, kind in ((SPEC, StreamedData), (SHIFT, RawData)):
            data = load(spec, root)
            assert type(data) is kind
            assert (data.classes, data.num_classes, data.channels, data.image_shape) == (CLASSES, 3, 3, (SIZE, SIZE))
            run = data.open(spec, 0, batch_size=4)
            train: TrainingBatches = run.train
            test: HeldOut = run.test
            assert (len(train), len(test), len(run.val)) == (5, 9, 0)
            assert test.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
            assert list(run.val.batches(4)) == []
            images, labels = joined(train.epoch(0, 0))
            assert images.shape == (18, 3, SIZE, SIZE) and images.dtype == torch.float32
            assert labels.dtype == torch.int64

    def test_workers_and_batch_size_change_nothing(self, root: Path) -> None:
        images, labels = joined(opened(root).train.epoch(3, 1))
        assert [len(labels) for _, labels in opened(root).train.epoch(3, 1)] == [4, 4, 4, 4, 2]
        for workers, batch_size in ((2, 4), (2, 5), (0, 18), (9, 9)):
            again = joined(opened(root, workers=workers, batch_size=batch_size).train.epoch(3, 1))
            assert torch.equal(again[0], images) and torch.equal(again[1], labels), (workers, batch_size)

    def test_an_epoch_can_be_had_without_those_before_it(self, root: Path) -> None:
        train = opened(root).train
        third = [joined(train.epoch(0, epoch)) for epoch in range(3)][2]
        assert torch.equal(joined(opened(root, workers=1).train.epoch(0, 2))[0], third[0])

    def test_epochs_and_seeds_differ(self, root: Path) -> None:
        train = opened(root).train
        images = [joined(train.epoch(seed, epoch))[0] for seed, epoch in ((0, 0), (0, 1), (1, 0))]
        assert not any(torch.equal(images[a], images[b]) for a, b in ((0, 1), (0, 2), (1, 2)))

    def test_an_image_is_augmented_anew_in_every_epoch(self, tmp_path: Path) -> None:
        """An image a class: sorted by label, two epochs differ by their augmentation alone."""
        for split in PER_CLASS:
            for label, name in enumerate(CLASSES):
                write(tmp_path, split, name, 0, noise(label))
        train = opened(tmp_path).train
        (first, labels), (second, others) = (joined(train.epoch(0, epoch)) for epoch in range(2))
        assert all(not torch.equal(first[labels == label], second[others == label]) for label in range(3))

    def test_every_image_comes_once_with_its_own_label(self, plain: Path) -> None:
        images, labels = joined(opened(plain, workers=2).train.epoch(0, 0))
        found = colours(images)
        assert sorted(found) == [(label, index, 0) for label in range(3) for index in range(6)]
        assert found != sorted(found)
        assert [label for label, _, _ in found] == labels.tolist()

    def test_held_out_images_come_in_order_and_unaugmented(self, root: Path) -> None:
        images, labels = joined(opened(root, workers=2).test.batches(500))
        view = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(SIZE), transforms.PILToTensor()])
        files = [root / "val" / name / f"{index}.png" for name in CLASSES for index in range(3)]
        expected = torch.stack([view(Image.open(file)) for file in files])
        assert torch.equal(images.round(), expected.float())
        assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]

    def test_held_out_batches_are_equal_and_no_larger_than_those_of_training(self, root: Path) -> None:
        cases = ((500, 4, [3, 3, 3]), (2, 4, [2, 2, 2, 2, 1]), (500, 256, [9]), (4, 256, [3, 3, 3]), (500, 6, [5, 4]))
        for at_most, batch_size, expected in cases:
            test = opened(root, batch_size=batch_size).test
            assert [len(labels) for _, labels in test.batches(at_most)] == expected

    def test_no_batch_is_of_one_image_where_there_are_more(self, root: Path) -> None:
        """It could not be normalised by itself. Of ten images, batches of three, three, three and one are as few."""
        write(root, "val", "cat", 3, noise(9))
        for spec, kind in ((SPEC, StreamedData), (SHIFT, RawData)):
            data = load(spec, root)
            assert type(data) is kind
            test = data.open(spec, 0, batch_size=5).test
            for at_most, expected in ((4, [4, 3, 3]), (3, [3, 3, 2, 2])):
                images, labels = zip(*test.batches(at_most), strict=True)
                assert list(map(len, images)) == list(map(len, labels)) == expected
                assert torch.equal(torch.cat(labels), test.labels)

    def test_flips_can_be_left_out_and_nothing_else_changes(self, root: Path) -> None:
        flipped, _ = joined(opened(root).train.epoch(0, 0))
        kept, _ = joined(opened(root, dataclasses.replace(SPEC, flip=False)).train.epoch(0, 0))
        mirrored = [not torch.equal(a, b) for a, b in zip(flipped, kept, strict=True)]
        assert 3 <= sum(mirrored) <= 15
        assert all(torch.equal(a, b.flip(-1)) for a, b, m in zip(flipped, kept, mirrored, strict=True) if m)

    def test_the_global_stream_is_left_alone(self, root: Path) -> None:
        run = opened(root)
        before = torch.get_rng_state()
        joined(run.train.epoch(0, 0))
        joined(run.test.batches(4))
        assert torch.equal(torch.get_rng_state(), before)

    def test_grey_images_are_seen_as_colour(self, root: Path) -> None:
        noise(0).convert("L").save(root / "val" / "ant" / "0.png")
        images, _ = joined(opened(root).test.batches(9))
        assert images.shape[1] == 3
        assert torch.equal(images[0, 0], images[0, 2])

    def test_channels_last_changes_the_layout_alone(self, root: Path) -> None:
        data = load(SPEC, root)
        run = data.open(SPEC, 0, batch_size=4, channels_last=True)
        (images, _), *_ = run.train.epoch(0, 0)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images, next(iter(opened(root).train.epoch(0, 0)))[0])

    def test_without_a_mean_it_is_measured_on_images_of_training(self, plain: Path) -> None:
        spec = dataclasses.replace(SPEC, mean=(), std=())
        run = load(spec, plain).open(spec, 0, batch_size=4)
        images, _ = joined(run.train.epoch(0, 0))
        assert torch.allclose(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
        assert torch.allclose(images[:, :2].std((0, 2, 3), correction=0), torch.ones(2), atol=1e-5)


class TestSplit:
    @pytest.mark.parametrize(
        "changes",
        [
            {"train_size": 7},
            {"val_fraction": 0.3},
            {"label_noise": 0.4},
            {"train_size": 15, "val_fraction": 0.2, "label_noise": 0.3},
        ],
    )
    def test_it_is_that_of_images_in_memory(self, plain: Path, changes: dict[str, Any]) -> None:
        streamed, resident = (opened(plain, dataclasses.replace(spec, **changes), seed=5) for spec in (SPEC, SHIFT))
        seen = []
        for run in (streamed, resident):
            images, labels = joined(run.train.epoch(0, 0))
            held_out = joined(run.val.batches(4)) if len(run.val) else (torch.zeros(0), torch.zeros(0))
            seen.append((colours(images), labels.tolist(), colours(held_out[0]), held_out[1].tolist()))
        assert seen[0] == seen[1]
        wrong = sum(colour[0] != label for colour, label in zip(*seen[0][:2], strict=True))
        assert wrong == round(changes.get("label_noise", 0) * len(seen[0][0]))


class TestMistakes:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_file_that_cannot_be_read_is_one_line_that_names_it(self, root: Path, workers: int) -> None:
        path = root / "train" / "bee" / "2.png"
        path.write_bytes(path.read_bytes()[:-60])
        with pytest.raises(DataError, match=r"train/bee/2.png cannot be read as an image") as caught:
            joined(opened(root, workers=workers).train.epoch(0, 0))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"train_size": 100}, r"data.train_size=100 needs 34 images of a class"),
            ({"val_fraction": 0.01}, r"no image to validate on"),
            ({"mean": (0.5,), "std": (0.2,)}, r"the images have 3 channel"),
        ],
    )
    def test_a_recipe_that_does_not_fit_is_found_before_anything_is_read(
        self, root: Path, changes: dict[str, Any], message: str
    ) -> None:
        spec = dataclasses.replace(SPEC, **changes)
        data = load(spec, root)
        for path in root.rglob("*.png"):
            path.write_bytes(b"")
        with pytest.raises(DataError, match=message):
            data.check(spec, 0)
        with pytest.raises(DataError, match=message):
            data.open(spec, 0, batch_size=4)

    def test_images_that_have_no_files_cannot_be_streamed(self) -> None:
        spec = DataSpec(name="digits", augment="resized_crop", image_size=8)
        with pytest.raises(DataError, match=r"digits has none here: give data.augment=shift"):
            load(spec)

    def test_one_class_is_none(self, root: Path) -> None:
        for split in PER_CLASS:
            for name in CLASSES[1:]:
                (root / split / name).rename(root / f"{split}-{name}")
        with pytest.raises(DataError, match="at least two"):
            load(SPEC, root)

    def test_a_set_that_memory_does_not_hold_says_how_it_is_streamed(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dhm.data.folders.MEMORY_LIMIT", 1000)
        with pytest.raises(DataError, match=r"data.augment=resized_crop"):
            load(SHIFT, root)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"augment": "resize_crop", "image_size": 8}, r"Did you mean 'resized_crop'"),
            ({"augment": "resized_crop"}, r"data.image_size=224"),
            ({"resize": 8}, r"data.image_size above 0"),
            ({"resize": 8, "image_size": 9}, r"not larger"),
            ({"resize": -1}, r"data.resize=-1: must not be negative"),
        ],
    )
    def test_fields_of_the_recipe(self, root: Path, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            load(DataSpec(name="image_folder", **fields), root)


class TestFingerprint:
    @staticmethod
    def of(root: Path, cache: Path | None = None) -> str:
        return load(SPEC, root, cache).fingerprint

    def test_it_follows_the_content_and_not_the_place(self, root: Path) -> None:
        first = self.of(root)
        assert first.startswith("files-") and len(first) == 22
        moved = root.rename(root.with_name("elsewhere"))
        (moved / "val").rename(moved / "test")
        assert self.of(moved) == first
        one, other = moved / "train" / "ant" / "0.png", moved / "train" / "ant" / "1.png"
        one.rename(other.with_name("swap"))
        other.rename(one)
        other.with_name("swap").rename(other)
        swapped = self.of(moved)
        assert swapped != first
        other.rename(moved / "train" / "bee" / "1000.png")
        assert self.of(moved) not in (first, swapped)

    def test_a_change_of_content_alone_is_seen(self, root: Path, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        first = self.of(root, cache)
        path = root / "val" / "cat" / "1.png"
        content, stat = path.read_bytes(), path.stat()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert self.of(root, cache) != first

    def test_content_is_read_once(self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = self.of(root, tmp_path / "cache")
        with monkeypatch.context() as patched:
            patched.setattr(hashlib, "file_digest", None)
            assert self.of(root, tmp_path / "cache") == first
        assert self.of(root) == first
        assert len(list((tmp_path / "cache").iterdir())) == 1

    def test_a_damaged_entry_is_made_again(self, root: Path, tmp_path: Path) -> None:
        first = self.of(root, tmp_path / "cache")
        (entry,) = (tmp_path / "cache").iterdir()
        entry.write_text(first[:-3])
        assert self.of(root, tmp_path / "cache") == first
        assert entry.read_text() == first

    def test_a_cache_that_cannot_be_written_costs_a_warning(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("in the way")
        with pytest.warns(UserWarning, match="fingerprint is not kept"):
            assert self.of(root, tmp_path / "cache") == self.of(root)

    def test_of_a_large_set_a_sample_is_read_and_says_so(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = sorted(root.rglob("*.png"))
        size = sum(path.stat().st_size for path in files)
        monkeypatch.setattr(fingerprint, "READ_LIMIT", size - 1)
        monkeypatch.setattr(fingerprint, "SAMPLE_BYTES", size // 3)
        first = self.of(root)
        assert first.startswith("sample-") and len(first) == 23
        seen = 0
        for path in files:
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            seen += self.of(root) != first
            path.write_bytes(content)
        assert 0.2 * len(files) < seen < 0.4 * len(files)
        for path in files:
            content = path.read_bytes()
            path.write_bytes(content + b"x")
            assert self.of(root) != first, "every file's size counts"
            path.write_bytes(content)
        monkeypatch.setattr(fingerprint, "SAMPLE_BYTES", 1)
        assert self.of(root).startswith("sample-")
        monkeypatch.setattr(fingerprint, "READ_LIMIT", size)
        assert self.of(root).startswith("files-")


WNIDS = ("n01440764", "n01443537")
# Class of each validation image, as ILSVRC numbers classes: not in the order of their ids.
TRUTH = (2, 1, 1, 2)


def tar(path: Path, folder: Path, mode: Any = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, arcname=file.name)


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ImageNet as it is published, in small: three archives, one of them of archives."""
    root, made = tmp_path / "imagenet", tmp_path / "made"
    for folder in (root, made / "train", made / "val", made / "devkit" / "ILSVRC2012_devkit_t12" / "data"):
        folder.mkdir(parents=True)
    for label, wnid in enumerate(WNIDS):
        for index in range(3):
            (made / wnid).mkdir(exist_ok=True)
            Image.new("RGB", (31, 23), (100 * label, 40 * index, 0)).save(made / wnid / f"{wnid}_{index}.JPEG")
        tar(made / "train" / f"{wnid}.tar", made / wnid)
    for index, number in enumerate(TRUTH):
        Image.new("RGB", (31, 23), (100 * (number - 1), 40 * index, 0)).save(made / "val" / f"val_{index}.JPEG")
    kit = made / "devkit" / "ILSVRC2012_devkit_t12" / "data"
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in TRUTH))
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")
    synsets = np.zeros((3, 1), dtype=[(field, object) for field in fields])
    for row, values in enumerate(
        [(1, WNIDS[0], "tench", "", 0), (2, WNIDS[1], "goldfish", "", 0), (3, "n0", "", "", 2)]
    ):
        synsets[row, 0] = values
    scipy.io.savemat(kit / "meta.mat", {"synsets": synsets})
    names = {split: name for split, (name, _) in imagenet.ARCHIVE_META.items()}
    tar(root / names["train"], made / "train")
    tar(root / names["val"], made / "val")
    tar(root / names["devkit"], made / "devkit", "w:gz")
    sums = {split: (name, hashlib.md5((root / name).read_bytes()).hexdigest()) for split, name in names.items()}
    monkeypatch.setattr(imagenet, "ARCHIVE_META", sums)
    return root


class TestImageNet:
    SPEC = dataclasses.replace(SPEC, name="imagenet")

    def test_archives_are_sorted_into_folders_of_classes(self, archives: Path) -> None:
        (archives / "test").mkdir()  # images without labels, as published: no test set
        data = load(self.SPEC, archives)
        assert data.classes == WNIDS
        images, labels = joined(data.open(self.SPEC, 0, batch_size=4).test.batches(4))
        assert labels.tolist() == [0, 0, 1, 1]
        assert [round(colour[0] / 100) for colour in colours(images)] == labels.tolist()
        assert [round(colour[1] / 40) for colour in colours(images)] == [1, 2, 0, 3]
        assert len(list((archives / "train").rglob("*.JPEG"))) == 6

    def test_they_are_unpacked_once_and_folders_are_enough(self, archives: Path) -> None:
        first = load(self.SPEC, archives).fingerprint
        for file in archives.iterdir():
            if file.is_file():
                file.unlink()
        assert load(self.SPEC, archives).fingerprint == first
        assert sorted(path.name for path in archives.iterdir()) == ["train", "val"]

    @pytest.mark.parametrize("split", ["train", "val", "devkit"])
    def test_an_archive_that_is_missing_or_damaged_leaves_nothing_behind(self, archives: Path, split: str) -> None:
        path = archives / imagenet.ARCHIVE_META[split][0]
        content = path.read_bytes()
        for damaged in (content[:-1000], None):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            with pytest.raises(DataError, match=rf"{path.name}.* data.root must be a folder that holds train/WNID"):
                load(self.SPEC, archives)
            assert not [file for file in archives.iterdir() if file.name.startswith(".")]
            assert not (archives / ("val" if split == "devkit" else split)).exists()
            path.write_bytes(content)
        load(self.SPEC, archives)

    def test_it_needs_a_root(self) -> None:
        with pytest.raises(DataError, match=r"data\.root=DIR.*ILSVRC2012_img_val\.tar"):
            load(self.SPEC)


RECIPE = Recipe(
    arch="resnet8",
    epochs=3,
    data=dataclasses.replace(SPEC, mean=(), std=(), val_fraction=0.2),
    optim=OptimSpec(lr=0.05, batch_size=5),
)


class _StopError(Exception):
    pass


class Stop(Callback):
    """Leaves in an epoch, at its second step."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_step(self, training: Training) -> None:
        if (training.epoch, training.step) == (self.epoch, 2):
            raise _StopError


def test_a_run_resumes_to_the_bit_whatever_its_workers(root: Path, tmp_path: Path) -> None:
    whole = fit(RECIPE, 0, Runtime(data_root=root))
    runtime = Runtime(data_root=root, checkpoint=tmp_path / "run.ckpt", checkpoint_every=0, workers=2)
    with pytest.raises(_StopError):
        fit(RECIPE, 0, runtime, [Stop(1)])
    resumed = fit(RECIPE, 0, dataclasses.replace(runtime, workers=1, cache=tmp_path / "cache"))
    assert [record.metrics for record in resumed.history] == [record.metrics for record in whole.history]
    assert {"val/top1_error", "test/top1_error"} <= set(whole.history[0].metrics)
    assert list(whole.class_errors["main"]) == list(CLASSES)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
