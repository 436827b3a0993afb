"""The two ways of reading images do the same work on the same files, and the page says how many cores that takes."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.input import HEIGHT, WIDTH, lay_out, ours, released, take_photographs
from benchmarks.page import SECTIONS
from dhm.data import load
from experiments.benchmarks import BENCHMARKS

SPEC = BENCHMARKS.get("imagenet").data
IMAGES = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.input.PHOTOGRAPHS", IMAGES - 1)
        return lay_out(folder / "set", take_photographs(folder), IMAGES)


def test_the_files_are_photographs_in_size(root: Path) -> None:
    files = sorted(root.rglob("*.JPEG"))
    assert len(files) == 2 * IMAGES
    for file in files:
        assert 95 < file.stat().st_size / 1000 < 125, "kB, as on ImageNet"
        with Image.open(file) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (WIDTH, HEIGHT))


def test_both_ways_see_the_same(root: Path) -> None:
    theirs, mine = released(root, SPEC, "cpu"), ours(load(SPEC, root), SPEC, "cpu", 0)
    (expected, truths), (images, labels) = (
        [torch.cat(part) for part in zip(*way("evaluation"), strict=True)] for way in (theirs, mine)
    )
    assert torch.equal(labels, truths)
    torch.testing.assert_close(images, expected)
    shapes = {tuple(images.shape) for way in (theirs, mine) for images, _ in way("training")}
    assert shapes == {(IMAGES, 3, 224, 224)}


def test_the_cores_that_decode_follow_from_what_an_image_costs() -> None:
    def arm(cost: float) -> dict[str, float]:
        return {"images_per_s": 2000 / cost, "processor_ms": cost, "ratio": 4 / cost}

    found = {
        "input": {"training": {"released way, 2 workers": arm(4.0), "ours, 2 workers": arm(2.5)}},
        "training": {"some network": {"images_per_s": 10.0, "processor_ms": 200.0, "with_input": 0.985}},
    }
    assert list(SECTIONS["input"].rows(found))[1:] == [
        ("training: ours, 2 workers", "800", "1.60", "2.5", "", ""),
        ("some network", "10.0", "", "200", "0.025", "98 %"),
        ("any network, on any device", "1,000", "", "", "2.5", ""),
    ]
