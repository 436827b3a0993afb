import dataclasses
import hashlib
import os
import pickle
import socket
import time
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import functional as F

from dhm.data import (
    DATASETS,
    Batches,
    DataError,
    HeldOutSet,
    ImageSet,
    Normaliser,
    RawData,
    folders,
    load,
    split,
)
from dhm.recipe import DataSpec
from dhm.streams import stream

SPEC = DataSpec(name="image_folder")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def raw_data(per_class: int | tuple[int, ...] = 20, classes: int = 5, size: int = 6) -> RawData:
    counts = (per_class,) * classes if isinstance(per_class, int) else per_class
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=generator)]
    images = torch.randint(256, (len(labels), 3, size, size), generator=generator, dtype=torch.uint8)
    return RawData(
        train_images=images,
        train_labels=labels,
        test_images=images[:7].clone(),
        test_labels=labels[:7].clone(),
        classes=tuple(f"class{label}" for label in range(len(counts))),
    )


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three training and two test images of 5 by 4 colour pixels for each of two classes."""
    for split_name, count in (("train", 3), ("test", 2)):
        for name in ("cat", "ant"):
            for index in range(count):
                path = tmp_path / "set" / split_name / name / f"{index}.png"
                save(path, pixels(len(name + split_name) + index, 4, 5, 3))
    return tmp_path / "set"


class TestRawData:
    def test_properties(self) -> None:
        raw = raw_data()
        assert (raw.num_classes, raw.channels) == (5, 3)
        assert len(raw.fingerprint) == 16
        assert int(raw.fingerprint, 16) >= 0

    def test_fingerprint_is_that_of_the_content(self) -> None:
        raw = raw_data()
        copy = {
            field.name: getattr(raw, field.name).clone() for field in dataclasses.fields(raw) if field.name != "classes"
        }
        channels_last = copy | {"train_images": raw.train_images.contiguous(memory_format=torch.channels_last)}
        assert RawData(**copy, classes=raw.classes).fingerprint == raw.fingerprint
        assert RawData(**channels_last, classes=raw.classes).fingerprint == raw.fingerprint

    @pytest.mark.parametrize("part", ["train", "test"])
    def test_fingerprint_sees_a_pixel_a_label_and_the_order(self, part: str) -> None:
        raw = raw_data()
        images, labels = getattr(raw, f"{part}_images"), getattr(raw, f"{part}_labels")
        pixel, label = images.clone(), labels.clone()
        pixel[3, 1, 2, 2] ^= 1
        label[3] = (label[3] + 1) % 5
        changed = [
            dataclasses.replace(raw, **{f"{part}_images": pixel}),
            dataclasses.replace(raw, **{f"{part}_labels": label}),
            dataclasses.replace(raw, **{f"{part}_images": images.flip(0)}),
            dataclasses.replace(raw, classes=(*raw.classes[:-1], "other")),
        ]
        assert len({raw.fingerprint, *(each.fingerprint for each in changed)}) == 5

    def test_fingerprint_sees_the_shape(self) -> None:
        raw = raw_data(size=6)
        flat = dataclasses.replace(
            raw,
            train_images=raw.train_images.reshape(-1, 3, 4, 9),
            test_images=raw.test_images.reshape(-1, 3, 4, 9),
        )
        assert flat.fingerprint != raw.fingerprint

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"train_images": torch.zeros(100, 3, 6, 6)}, "training images: expected uint8"),
            ({"test_labels": torch.zeros(6, dtype=torch.int64)}, "test labels: expected int64"),
            ({"test_labels": torch.full((7,), 5)}, "0 to 4"),
            ({"test_images": torch.zeros(7, 1, 6, 6, dtype=torch.uint8)}, "must be equal"),
        ],
    )
    def test_what_cannot_be_used_is_an_error(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            dataclasses.replace(raw_data(), **change)

    def test_one_class_is_an_error(self) -> None:
        with pytest.raises(DataError, match="at least two"):
            raw_data(classes=1)


class TestDigits:
    def test_pool_and_test_set_are_the_file_in_its_order(self) -> None:
        import sklearn.datasets

        raw, digits = load(DataSpec(name="digits")), sklearn.datasets.load_digits()
        assert raw.train_images.shape == (1000, 1, 8, 8)
        assert raw.test_images.shape == (797, 1, 8, 8)
        images = torch.cat([raw.train_images, raw.test_images]).squeeze(1).numpy()
        assert (images == np.round(digits.images * 255 / 16)).all()
        assert images.max() == 255
        assert torch.cat([raw.train_labels, raw.test_labels]).tolist() == digits.target.tolist()
        assert raw.classes == tuple("0123456789")

    def test_content_is_frozen(self) -> None:
        assert load(DataSpec(name="digits")).fingerprint == "46942fde8fbb0767"

    def test_image_size(self) -> None:
        raw = load(DataSpec(name="digits", image_size=16))
        assert raw.test_images.shape == (797, 1, 16, 16)
        small = load(DataSpec(name="digits")).train_images[0]
        expected = F.pil_to_tensor(F.to_pil_image(small).resize((16, 16), Image.Resampling.BILINEAR))
        assert torch.equal(raw.train_images[0], expected)


class TestImageFolder:
    def test_reads_classes_by_name_and_files_in_order(self, root: Path) -> None:
        raw = load(SPEC, root)
        assert raw.classes == ("ant", "cat")
        assert raw.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert raw.test_labels.tolist() == [0, 0, 1, 1]
        expected = np.asarray(Image.open(root / "train/cat/1.png")).transpose(2, 0, 1)
        assert (raw.train_images[4].numpy() == expected).all()

    def test_reads_deeper_folders_and_upper_case_and_leaves_hidden_files(self, root: Path) -> None:
        before = load(SPEC, root)
        (root / "train/ant/more").mkdir()
        (root / "train/ant/2.png").rename(root / "train/ant/more/2.PNG")
        (root / "train/ant/._0.png").write_bytes(b"not an image")
        (root / "train/ant/notes.txt").write_text("not an image")
        (root / "train/.checkpoints").mkdir()
        assert load(SPEC, root).fingerprint == before.fingerprint

    def test_home_is_expanded(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(root.parent))
        assert load(SPEC, Path("~/set")).fingerprint == load(SPEC, root).fingerprint

    def test_all_grey_is_one_channel(self, root: Path) -> None:
        for path in root.rglob("*.png"):
            Image.open(path).convert("L").save(path)
        raw = load(SPEC, root)
        assert raw.channels == 1
        assert (raw.test_images[3, 0].numpy() == np.asarray(Image.open(root / "test/cat/1.png"))).all()

    def test_grey_among_colour_becomes_rgb(self, root: Path) -> None:
        coloured = load(SPEC, root)
        path = root / "train/ant/0.png"
        Image.open(path).convert("L").save(path)
        raw = load(SPEC, root)
        grey = torch.from_numpy(np.array(Image.open(path)))
        assert torch.equal(raw.train_images[0], grey.expand(3, 4, 5))
        assert torch.equal(raw.train_images[1:], coloured.train_images[1:])

    def test_palette_and_transparency_become_rgb(self, root: Path) -> None:
        coloured = load(SPEC, root)
        path = root / "train/ant/0.png"
        image = Image.open(path)
        image.putalpha(7)
        image.save(path)
        Image.open(root / "train/ant/1.png").quantize(20).save(root / "train/ant/1.png")
        raw = load(SPEC, root)
        assert torch.equal(raw.train_images, coloured.train_images)

    def test_sixteen_bits_are_scaled(self, root: Path) -> None:
        for path in root.rglob("*.png"):
            save(path, np.full((4, 5), 0x80FF, dtype=np.uint16))
        assert load(SPEC, root).train_images.unique().tolist() == [0x80]

    def test_image_size_resizes_the_shorter_side_and_crops_the_centre(self, root: Path) -> None:
        path = save(root / "train/ant/0.png", pixels(0, 20, 40, 3))
        raw = load(dataclasses.replace(SPEC, image_size=8), root)
        assert raw.train_images.shape == (6, 3, 8, 8)
        resized = Image.open(path).resize((16, 8), Image.Resampling.BILINEAR).crop((4, 0, 12, 8))
        assert torch.equal(raw.train_images[0], F.pil_to_tensor(resized))

    def test_large_files_are_decoded_like_small_ones(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = load(SPEC, root).fingerprint
        monkeypatch.setattr(folders, "SMALL_FILE", 0)
        monkeypatch.setattr(folders, "CHUNK", 2)
        assert load(SPEC, root).fingerprint == before

    def test_too_much_for_memory_is_an_error(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(folders, "MEMORY_LIMIT", 10 * 3 * 4 * 5 - 1)
        with pytest.raises(DataError, match=r"10 decoded images of 5 by 4 .* smaller data\.image_size"):
            load(SPEC, root)


def remove(path: Path) -> None:
    for child in path.iterdir():
        child.unlink() if child.is_file() else remove(child)
    path.rmdir()


def move_up(folder: Path) -> None:
    for child in folder.iterdir():
        child.rename(folder.parent / child.name)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


BAD_FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no root": (remove, r"set is not a folder: correct the path, or create a folder that holds train/CLASS"),
    "no train": (lambda root: remove(root / "train"), r"set has no train/ folder"),
    "not divided": (
        lambda root: (move_up(root / "train"), remove(root / "train")),
        r"no train/ folder.* If ant/ and cat/ are classes, move about a fifth of each into test/, the rest into train/",
    ),
    "no test": (
        lambda root: (root / "test").rename(root / "tests"),
        r"no test/ folder.*val/ will do",
    ),
    "no classes": (
        lambda root: [remove(path) for path in (root / "train").iterdir()],
        r"set/train has no class folders",
    ),
    "classes differ": (
        lambda root: (root / "test/cat").rename(root / "test/dog"),
        r"same classes; only train/ has cat; only test/ has dog",
    ),
    "class missing": (lambda root: remove(root / "train/ant"), r"same classes; only test/ has ant"),
    "class empty": (
        lambda root: [path.unlink() for path in (root / "test/cat").iterdir()],
        r"set/test/cat has no images .*remove the class",
    ),
    "truncated": (
        lambda root: truncate(root / "train/cat/1.png"),
        r"train/cat/1.png cannot be read as an image .*replace or remove it",
    ),
    "no image": (
        lambda root: (root / "test/ant/0.png").write_text("hello"),
        r"test/ant/0.png cannot be read as an image",
    ),
    "32 bits a pixel": (
        lambda root: save(root / "test/ant/0.tif", np.zeros((4, 5), dtype=np.float32)),
        r"test/ant/0.tif cannot be read .*8 or 16",
    ),
    "sizes differ": (
        lambda root: save(root / "test/ant/0.png", pixels(0, 7, 9, 3)),
        r"test/ant/0.png is 9 by 7 pixels, .*train/ant/0.png is 5 by 4: set data.image_size=32",
    ),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders_are_one_clear_error(root: Path, case: str) -> None:
    damage, message = BAD_FOLDERS[case]
    damage(root)
    with pytest.raises(DataError, match=message):
        load(SPEC, root)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "image_folder"])
def test_sets_on_disk_need_a_root(name: str) -> None:
    with pytest.raises(DataError, match=r"give data\.root=DIR"):
        load(DataSpec(name=name))


def test_unknown_name_lists_the_data_sets() -> None:
    with pytest.raises(ValueError, match=r"'cifar10'\? Choose one of: cifar10, .*, image_folder, imagenet"):
        load(DataSpec(name="cifar-10"))


def test_a_plain_function_can_be_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS, "_values", dict(DATASETS._values))
    raw = raw_data()
    DATASETS.register("mine", lambda root, spec: raw)
    assert load(DataSpec(name="mine"), cache=tmp_path) is raw


def write_cifar100(root: Path) -> dict[str, str]:
    """CIFAR-100's Python version with 6 training and 4 test images; checksums by file name."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    contents = {
        "train": {"data": pixels(1, 6, 3072), "fine_labels": [2, 0, 1, 1, 0, 2]},
        "test": {"data": pixels(2, 4, 3072), "fine_labels": [0, 1, 2, 0]},
        "meta": {"fine_label_names": ["ant", "bee", "cat"]},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    return {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in contents}


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sums = write_cifar100(tmp_path / "cifar")
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": sums["meta"]})
    return tmp_path / "cifar"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The socket timeouts under which a download was tried."""
    tried: list[float | None] = []

    def download(self: datasets.CIFAR10) -> None:
        tried.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(datasets.CIFAR10, "download", download)
    return tried


class TestCifar:
    SPEC = DataSpec(name="cifar100")

    def test_reads_the_pickled_format(self, cifar: Path) -> None:
        raw = load(self.SPEC, cifar)
        assert raw.classes == ("ant", "bee", "cat")
        assert (raw.train_images.numpy() == pixels(1, 6, 3072).reshape(6, 3, 32, 32)).all()
        assert (raw.test_images.numpy() == pixels(2, 4, 3072).reshape(4, 3, 32, 32)).all()
        assert raw.train_labels.tolist() == [2, 0, 1, 1, 0, 2]
        assert raw.test_labels.tolist() == [0, 1, 2, 0]

    def test_image_size(self, cifar: Path) -> None:
        raw = load(dataclasses.replace(self.SPEC, image_size=16), cifar)
        original = F.to_pil_image(torch.from_numpy(pixels(1, 6, 3072)[5].reshape(3, 32, 32)))
        expected = F.pil_to_tensor(original.resize((16, 16), Image.Resampling.BILINEAR))
        assert torch.equal(raw.train_images[5], expected)

    @pytest.mark.parametrize("name", ["cifar10", "cifar100"])
    def test_reads_folders(self, root: Path, name: str) -> None:
        assert load(DataSpec(name=name), root).fingerprint == load(SPEC, root).fingerprint

    def test_folders_without_a_test_set_are_not_downloaded_over(
        self, root: Path, no_network: list[float | None]
    ) -> None:
        remove(root / "test")
        with pytest.raises(DataError, match="has no test/ folder"):
            load(self.SPEC, root)
        assert no_network == []

    @pytest.mark.parametrize("cached", [False, True])
    @pytest.mark.parametrize("damage", [truncate, Path.unlink])
    def test_damaged_files_are_an_error(
        self, cifar: Path, tmp_path: Path, damage: Callable[[Path], None], cached: bool
    ) -> None:
        damage(cifar / "cifar-100-python/test")
        with pytest.raises(DataError, match=r"cifar-100-python is incomplete or damaged .*unpack https://"):
            load(self.SPEC, cifar, tmp_path / "cache" if cached else None)

    def test_a_failed_download_says_what_to_put_where(self, tmp_path: Path, no_network: list[float | None]) -> None:
        before = socket.getdefaulttimeout()
        with pytest.raises(DataError) as caught:
            load(self.SPEC, tmp_path)
        for part in ("no network", str(tmp_path), "cifar-100-python/ (unpack https://", "train/CLASS"):
            assert part in str(caught.value)
        assert no_network == [10.0]
        assert socket.getdefaulttimeout() == before
        assert list(tmp_path.iterdir()) == []

    def test_a_mistyped_root_is_not_downloaded_into(self, tmp_path: Path, no_network: list[float | None]) -> None:
        with pytest.raises(DataError, match=r"tpyo is not a folder: correct the path, or create"):
            load(self.SPEC, tmp_path / "tpyo")
        assert no_network == []
        assert not (tmp_path / "tpyo").exists()

    def test_a_download_appears_whole(self, cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def download(self: datasets.CIFAR10) -> None:
            assert not (tmp_path / "new/cifar-100-python").exists()
            write_cifar100(Path(self.root))

        monkeypatch.setattr(datasets.CIFAR10, "download", download)
        (tmp_path / "new").mkdir()
        assert load(self.SPEC, tmp_path / "new").fingerprint == load(self.SPEC, cifar).fingerprint
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["cifar-100-python"]


class TestCache:
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Path:
        return tmp_path / "deep/cache"

    @pytest.fixture
    def no_decoding(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        def fail(*_: Any, **__: Any) -> None:
            raise AssertionError("decoded")

        return lambda: monkeypatch.setattr(folders, "decode", fail)

    def test_second_load_does_not_decode(self, root: Path, cache: Path, no_decoding: Callable[[], None]) -> None:
        first = load(SPEC, root, cache)
        no_decoding()
        second = load(SPEC, root, cache)
        assert "fingerprint" in vars(second)  # stored, not computed again
        for field in dataclasses.fields(first):
            if field.name != "classes":
                assert torch.equal(getattr(first, field.name), getattr(second, field.name))
        assert second.classes == first.classes
        assert second.fingerprint == first.fingerprint
        assert dataclasses.replace(second).fingerprint == first.fingerprint
        assert len(list(cache.iterdir())) == 1

    def test_pickled_cifar_is_kept_too(self, cifar: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = load(TestCifar.SPEC, cifar, cache)
        monkeypatch.setattr(datasets.CIFAR100, "__init__", None)
        assert load(TestCifar.SPEC, cifar, cache).fingerprint == first.fingerprint

    def test_changing_what_was_loaded_does_not_change_the_entry(self, root: Path, cache: Path) -> None:
        load(SPEC, root, cache)
        load(SPEC, root, cache).train_images.zero_()
        assert load(SPEC, root, cache).train_images.any()

    def test_another_size_is_another_entry(self, root: Path, cache: Path) -> None:
        load(SPEC, root, cache)
        assert load(dataclasses.replace(SPEC, image_size=3), root, cache).train_images.shape[2:] == (3, 3)

    def test_a_changed_file_is_seen(self, root: Path, cache: Path) -> None:
        first = load(SPEC, root, cache)
        save(root / "train/ant/0.png", pixels(99, 4, 5, 3))
        assert load(SPEC, root, cache).fingerprint != first.fingerprint

    def test_a_new_and_a_renamed_file_are_seen(self, root: Path, cache: Path) -> None:
        load(SPEC, root, cache)
        (root / "train/ant/0.png").rename(root / "train/ant/9.png")
        renamed = load(SPEC, root, cache)
        assert renamed.fingerprint == load(SPEC, root).fingerprint
        save(root / "train/ant/10.png", pixels(99, 4, 5, 3))
        assert len(load(SPEC, root, cache).train_images) == 7

    def test_a_file_of_equal_size_and_restored_time_is_seen(self, root: Path, cache: Path) -> None:
        for path in sorted(root.rglob("*.png")):
            Image.open(path).save(path.with_suffix(".bmp"))
            path.unlink()
        first = load(SPEC, root, cache)
        path = root / "train/ant/0.bmp"
        before = path.stat()
        time.sleep(0.02)  # the clock of inodes ticks in milliseconds
        save(path, pixels(99, 4, 5, 3))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert load(SPEC, root, cache).fingerprint != first.fingerprint

    @pytest.mark.parametrize(
        "damage",
        [
            truncate,
            lambda path: path.write_bytes(b""),
            lambda path: path.write_bytes(b"PK" + bytes(1000)),
            lambda path: torch.save({"train_images": torch.zeros(3)}, path),
            lambda path: torch.save([1, 2], path),
            lambda path: path.write_bytes(pickle.dumps(Path("not a tensor"))),
        ],
    )
    def test_a_damaged_entry_is_built_again(
        self, root: Path, cache: Path, damage: Callable[[Path], Any], no_decoding: Callable[[], None]
    ) -> None:
        first = load(SPEC, root, cache)
        (entry,) = cache.iterdir()
        damage(entry)
        assert load(SPEC, root, cache).fingerprint == first.fingerprint
        no_decoding()
        assert load(SPEC, root, cache).fingerprint == first.fingerprint

    def test_a_cache_that_cannot_be_written_is_a_warning(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.warns(UserWarning, match="every run will decode again"):
            raw = load(SPEC, root, tmp_path / "file")
        assert raw.fingerprint == load(SPEC, root).fingerprint

    def test_a_full_disk_leaves_nothing_behind(self, root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(content: Any, file: Any) -> None:
            file.write(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.warns(UserWarning, match="No space left"):
            load(SPEC, root, cache)
        assert list(cache.iterdir()) == []

    def test_several_may_build_an_entry_at_once(self, root: Path, cache: Path) -> None:
        with ThreadPoolExecutor(4) as pool:
            raws = list(pool.map(lambda _: load(SPEC, root, cache), range(8)))
        assert {raw.fingerprint for raw in raws} == {load(SPEC, root).fingerprint}
        assert len(list(cache.iterdir())) == 1


def rows(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


class TestSplit:
    RAW = raw_data(per_class=20, classes=5)

    def of(self, seed: int = 0, raw: RawData | None = None, **settings: Any) -> Any:
        return split(raw or self.RAW, DataSpec(name="mine", **settings), seed)

    def test_by_default_all_is_kept_as_it_is(self) -> None:
        parts = self.of()
        assert parts.train.images is self.RAW.train_images
        assert torch.equal(parts.train.labels, self.RAW.train_labels)
        assert torch.equal(parts.test.images, self.RAW.test_images)
        assert torch.equal(parts.test.labels, self.RAW.test_labels)
        assert len(parts.val) == 0

    def test_train_size_is_balanced(self) -> None:
        assert self.of(train_size=50).train.labels.bincount().tolist() == [10] * 5
        assert sorted(self.of(train_size=53).train.labels.bincount().tolist()) == [10, 10, 11, 11, 11]

    def test_a_class_that_is_used_up_gives_no_image_more(self) -> None:
        raw = raw_data(per_class=(10, 12, 12))
        for seed in range(5):
            assert self.of(seed, raw, train_size=32).train.labels.bincount().tolist() == [10, 11, 11]

    def test_images_keep_their_labels_and_their_order(self) -> None:
        parts = self.of(train_size=50, val_fraction=0.2)
        everything = rows(self.RAW.train_images)
        for part in (parts.train, parts.val):
            where = [everything.index(row) for row in rows(part.images)]
            assert where == sorted(where)
            assert torch.equal(self.RAW.train_labels[where], part.labels)

    def test_a_seed_gives_one_subset(self) -> None:
        assert rows(self.of(3, train_size=50).train.images) == rows(self.of(3, train_size=50).train.images)
        assert rows(self.of(3, train_size=50).train.images) != rows(self.of(4, train_size=50).train.images)

    def test_a_larger_subset_contains_the_smaller(self) -> None:
        sets = [set(rows(self.of(train_size=size).train.images)) for size in (7, 33, 50, 100)]
        assert sets[0] < sets[1] < sets[2] < sets[3]

    def test_a_larger_subset_keeps_what_the_smaller_keeps_and_holds_out_others(self) -> None:
        smaller, larger = (self.of(train_size=size, val_fraction=0.1) for size in (25, 26))
        train, val = (
            [set(rows(getattr(parts, name).images)) for parts in (smaller, larger)] for name in ("train", "val")
        )
        assert train[0] | val[0] < train[1] | val[1]
        assert val[0] & train[1], "validates in the smaller, trains in the larger"
        assert train[0] & val[1], "and the other way round"

    @pytest.mark.parametrize(
        ("per_class", "size", "message"),
        [
            (20, 101, r"needs 21 images of a class, but there are 100 training images.*at most 100"),
            ((20, 10, 20), 40, r"10 of class 'class1': give at most 32, or 0 to keep all"),
            ((10, 12, 12), 33, r"give at most 32"),
        ],
    )
    def test_too_large_a_subset_is_an_error(self, per_class: int | tuple[int, ...], size: int, message: str) -> None:
        with pytest.raises(DataError, match=message):
            self.of(raw=raw_data(per_class), train_size=size)

    def test_validation_is_disjoint_balanced_and_of_the_kept_images(self) -> None:
        kept = set(rows(self.of(train_size=50).train.images))
        parts = self.of(train_size=50, val_fraction=0.2)
        train, val = set(rows(parts.train.images)), set(rows(parts.val.images))
        assert not train & val
        assert train | val == kept
        assert parts.val.labels.bincount().tolist() == [2] * 5

    def test_validation_has_its_share_where_classes_have_less_than_one(self) -> None:
        assert len(self.of(val_fraction=0.03).val) == 3
        assert max(self.of(val_fraction=0.03).val.labels.bincount().tolist()) == 1

    @pytest.mark.parametrize(
        ("fraction", "message"), [(0.001, "no image to validate on"), (0.99, "no image to train on in class0")]
    )
    def test_an_empty_part_is_an_error(self, fraction: float, message: str) -> None:
        with pytest.raises(DataError, match=message):
            self.of(val_fraction=fraction)

    def test_noise_replaces_its_share_by_other_classes(self) -> None:
        clean, noisy = self.of(val_fraction=0.2), self.of(val_fraction=0.2, label_noise=0.4)
        assert rows(clean.train.images) == rows(noisy.train.images)
        assert int((clean.train.labels != noisy.train.labels).sum()) == 32  # 0.4 of 80
        assert torch.equal(clean.val.labels, noisy.val.labels)
        assert rows(clean.val.images) == rows(noisy.val.images)
        assert torch.equal(clean.test.labels, noisy.test.labels)

    def test_noise_leaves_the_data_set_alone(self) -> None:
        before = self.RAW.train_labels.clone()
        self.of(label_noise=0.5)
        assert torch.equal(self.RAW.train_labels, before)

    def test_noise_draws_every_other_class_alike(self) -> None:
        raw = raw_data(per_class=2000, classes=4, size=1)
        noisy = self.of(raw=raw, label_noise=0.9).train.labels
        shift = (noisy - raw.train_labels) % 4
        counts = shift.bincount(minlength=4)
        assert counts[0] == 800
        assert (counts[1:] - 2400).abs().max() < 5 * (7200 * 1 / 3 * 2 / 3) ** 0.5

    def test_an_image_has_the_same_wrong_class_whichever_others_are_kept(self) -> None:
        clean = self.of().train
        true = dict(zip(rows(clean.images), clean.labels.tolist(), strict=True))
        few, all_ = self.of(train_size=60, label_noise=0.5).train, self.of(label_noise=0.5).train
        among_all = dict(zip(rows(all_.images), all_.labels.tolist(), strict=True))
        both = [
            (label, among_all[image])
            for image, label in zip(rows(few.images), few.labels.tolist(), strict=True)
            if label != true[image] and among_all[image] != true[image]
        ]
        assert len(both) > 10
        assert all(one == other for one, other in both)

    def test_more_noise_keeps_what_was_wrong(self) -> None:
        less, more = self.of(label_noise=0.2).train.labels, self.of(label_noise=0.5).train.labels
        wrong = less != self.RAW.train_labels
        assert torch.equal(less[wrong], more[wrong])

    def test_another_seed_makes_other_labels_wrong(self) -> None:
        assert not torch.equal(self.of(0, label_noise=0.3).train.labels, self.of(1, label_noise=0.3).train.labels)


class TestNormaliser:
    def test_measures_mean_and_deviation(self) -> None:
        images = raw_data(size=9).train_images
        normaliser = Normaliser.measured(images)
        values = images.to(torch.float64) / 255
        assert normaliser.mean == pytest.approx(values.mean((0, 2, 3)).tolist(), rel=1e-12)
        assert normaliser.std == pytest.approx(values.std((0, 2, 3), correction=0).tolist(), rel=1e-12)

    def test_does_not_depend_on_the_order(self) -> None:
        images = raw_data().train_images
        assert Normaliser.measured(images.flip(0)) == Normaliser.measured(images)

    def test_a_constant_channel_becomes_zero(self) -> None:
        images = torch.full((4, 1, 2, 2), 100, dtype=torch.uint8)
        normalised = Normaliser.measured(images).on("cpu")(images)
        assert normalised.abs().max() < 1e-6

    def test_the_recipe_comes_first(self) -> None:
        spec = DataSpec(name="mine", mean=MEAN, std=STD)
        assert Normaliser.of(spec, raw_data().train_images) == Normaliser(MEAN, STD)

    def test_of_the_run_s_own_training_images(self) -> None:
        spec = DataSpec(name="mine", train_size=10)
        raw = raw_data()
        parts = split(raw, spec, 0)
        batches = Batches(parts.train, spec, batch_size=4)
        assert batches.normaliser == Normaliser.measured(parts.train.images)
        assert batches.normaliser != Normaliser.measured(raw.train_images)

    def test_one_value_a_channel(self) -> None:
        grey = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
        with pytest.raises(DataError, match=r"1 channel\(s\); give one value a channel"):
            Normaliser.of(DataSpec(name="mine", mean=MEAN, std=STD), grey)


class TestBatches:
    RAW = raw_data(per_class=21, classes=5, size=8)

    def of(self, batch_size: int = 32, channels_last: bool = False, **settings: Any) -> Batches:
        spec = DataSpec(name="mine", mean=MEAN, std=STD, **settings)
        train = ImageSet(self.RAW.train_images, self.RAW.train_labels)
        return Batches(train, spec, batch_size=batch_size, channels_last=channels_last)

    @staticmethod
    def joined(batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = zip(*batches, strict=True)
        return torch.cat(images), torch.cat(labels)

    @pytest.mark.parametrize("pad", [0, 1, 4, 9])
    @pytest.mark.parametrize("flip", [False, True])
    def test_equal_to_torchvision(self, pad: int, flip: bool) -> None:
        seed, epoch, count = 5, 2, len(self.RAW.train_images)
        order = torch.randperm(count, generator=stream(seed, "order", epoch))
        augment = stream(seed, "augment", epoch)
        flips = torch.randint(2, (count,), generator=augment, dtype=torch.bool).tolist()
        offsets = torch.randint(2 * pad + 1, (2, count), generator=augment).T.tolist()
        images, labels = self.joined(self.of(pad=pad, flip=flip).epoch(seed, epoch))
        assert torch.equal(labels, self.RAW.train_labels[order])
        for position, (down, right) in enumerate(offsets):
            image = F.to_pil_image(self.RAW.train_images[order[position]])
            image = F.crop(F.pad(image, pad), down, right, 8, 8)
            if flip and flips[position]:
                image = F.hflip(image)
            expected = F.normalize(F.to_tensor(image), MEAN, STD)
            torch.testing.assert_close(images[position], expected, rtol=0, atol=1e-6)

    def test_all_shifts_and_both_directions_occur(self) -> None:
        one = ImageSet(self.RAW.train_images[:1].expand(2000, -1, -1, -1), torch.zeros(2000, dtype=torch.int64))
        spec = DataSpec(name="mine", mean=MEAN, std=STD, pad=2)
        images, _ = self.joined(Batches(one, spec, batch_size=500).epoch(0, 0))
        _, counts = images.flatten(1).unique(dim=0, return_counts=True)
        assert len(counts) == 5 * 5 * 2
        assert (counts - 40).abs().max() < 5 * 40**0.5

    def test_every_image_once_an_epoch(self) -> None:
        images, _ = self.joined(self.of(pad=0, flip=False).epoch(0, 0))
        normalised = Normaliser(MEAN, STD).on("cpu")(self.RAW.train_images)
        assert sorted(rows(images)) == sorted(rows(normalised))

    def test_a_seed_and_an_epoch_give_one_epoch(self) -> None:
        first, labels = self.joined(self.of().epoch(1, 0))
        again, labels_again = self.joined(self.of().epoch(1, 0))
        assert torch.equal(first, again)
        assert torch.equal(labels, labels_again)
        for seed, epoch in ((1, 1), (2, 0)):
            other, _ = self.joined(self.of().epoch(seed, epoch))
            assert not torch.equal(first, other)

    def test_augmentation_differs_between_epochs(self) -> None:
        one = ImageSet(self.RAW.train_images[:1].expand(50, -1, -1, -1), torch.zeros(50, dtype=torch.int64))
        spec = DataSpec(name="mine", mean=MEAN, std=STD)
        epochs = [self.joined(Batches(one, spec, batch_size=50).epoch(0, epoch))[0] for epoch in (0, 1)]
        assert not torch.equal(*epochs)

    def test_an_epoch_does_not_depend_on_the_batch_size_nor_on_what_was_drawn(self) -> None:
        torch.manual_seed(1)
        first, _ = self.joined(self.of(batch_size=32).epoch(0, 3))
        torch.manual_seed(2)
        batches = self.of(batch_size=7)
        list(batches.epoch(0, 0))
        second, _ = self.joined(batches.epoch(0, 3))
        assert torch.equal(first, second)

    def test_flips_do_not_depend_on_the_padding(self) -> None:
        plain, _ = self.joined(self.of(pad=0, flip=False).epoch(0, 0))
        flipped, _ = self.joined(self.of(pad=0).epoch(0, 0))
        turned = (plain != flipped).flatten(1).any(1)
        padded, _ = self.joined(self.of(pad=2).epoch(0, 0))
        unflipped, _ = self.joined(self.of(pad=2, flip=False).epoch(0, 0))
        assert torch.equal((padded != unflipped).flatten(1).any(1), turned)
        assert 0 < int(turned.sum()) < len(turned)

    def test_the_last_batch_is_smaller(self) -> None:
        batches = self.of(batch_size=32)
        assert [len(labels) for _, labels in batches.epoch(0, 0)] == [32, 32, 32, 9]
        assert len(batches) == 4

    def test_a_batch_larger_than_the_set_is_the_set(self) -> None:
        batches = self.of(batch_size=1000)
        assert [images.shape for images, _ in batches.epoch(0, 0)] == [(105, 3, 8, 8)]
        assert len(batches) == 1

    def test_channels_last(self) -> None:
        plain, last = (next(self.of(channels_last=value).epoch(0, 0))[0] for value in (False, True))
        assert plain.is_contiguous()
        assert last.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(plain, last)

    @pytest.mark.parametrize("channels_last", [False, True])
    def test_evaluation_is_in_order_and_without_augmentation(self, channels_last: bool) -> None:
        test = ImageSet(self.RAW.train_images, self.RAW.train_labels).to("cpu")
        batches = list(HeldOutSet(test, Normaliser(MEAN, STD), channels_last=channels_last).batches(50))
        assert [len(labels) for _, labels in batches] == [35, 35, 35]
        images, labels = self.joined(iter(batches))
        expected = F.normalize(test.images.float() / 255, MEAN, STD)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
        assert torch.equal(labels, test.labels)
        assert batches[0][0].is_contiguous(memory_format=torch.channels_last) is channels_last

    def test_evaluating_an_empty_set_gives_nothing(self) -> None:
        empty = ImageSet(self.RAW.train_images[:0], self.RAW.train_labels[:0])
        assert list(HeldOutSet(empty, Normaliser(MEAN, STD)).batches(50)) == []
