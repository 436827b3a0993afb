import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms
from torchvision.datasets import ImageFolder

from dhm.backbones import ARCHITECTURES
from dhm.evaluate import HeadError, head_errors, held_out, main, parse
from dhm.network import BranchedNetwork, Heads, build_network
from dhm.recipe import DataSpec, Recipe
from dhm.released import load_released, released_names

ROOT = Path(__file__).parents[2]


def write_images(folder: Path, classes: int, count: int, size: tuple[int, int], *, grey: bool = False) -> None:
    """Images of noise, brighter from class to class; each of its own size where `size` is not square."""
    generator = np.random.default_rng(len(folder.name))
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for index in range(count):
            width, height = size if size[0] == size[1] else (size[0] + 11 * index, size[1] + 7 * label)
            shape = (height, width) if grey else (height, width, 3)
            pixels = generator.integers(20 * label, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{index}.png")


def write_weights(arch: str, classes: int, path: Path, *, branched: bool = True) -> None:
    """A released state dict of an untrained network whose statistics are those of a batch."""
    branches = ARCHITECTURES.get(arch).branches if branched else ()
    recipe = Recipe(arch=arch, epochs=1, data=DataSpec(name="digits"), branches=branches)
    network = build_network(recipe, in_channels=3, num_classes=classes, seed=0).train()
    with torch.no_grad():
        network(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    names = released_names(network)
    torch.save({f"module.{names[ours]}": tensor for ours, tensor in network.state_dict().items()}, path)


class Fixed(BranchedNetwork):
    """Heads whose logits are the images themselves: (B, heads, 1, classes)."""

    def __init__(self, classes: int, sides: int) -> None:
        nn.Module.__init__(self)
        self.backbone = ARCHITECTURES.get("resnet8").build(num_classes=classes)
        self.sides = nn.ModuleDict({f"side{number + 1}": nn.Identity() for number in range(sides)})

    def forward(self, images: Tensor, heads: tuple[str, ...] | None = None) -> Heads:
        main, *sides = images[:, :, 0].unbind(1)
        return Heads(main, tuple(sides))


def test_errors_of_heads_and_of_their_ensembles_by_hand() -> None:
    # Two heads are fairly sure of class 0. The third is no surer in its softmax, by however much its logits lead; by
    # the mean of logits it alone decides.
    logits = torch.tensor([[5.0, 1, 0, 0, 0, -1], [5, 1, 0, 0, 0, -1], [0, 90, 4, 3, 2, 1]])
    images = logits[None, :, None]
    errors = head_errors(
        Fixed(6, 2), [(images, torch.tensor([0])), (images.repeat(3, 1, 1, 1), torch.tensor([1, 0, 5]))]
    )
    assert list(errors) == ["main", "side1", "side2", "ensemble", "ensemble_softmax"]
    # the labels are 0, 1, 0 and 5
    assert [error.top1_error for error in errors.values()] == [50, 50, 75, 75, 50]
    assert [error.top5_error for error in errors.values()] == [25, 25, 50, 25, 25]


def test_a_plain_network_has_no_ensemble_and_few_classes_no_top_five() -> None:
    images = torch.eye(4)[:, None, None]
    assert head_errors(Fixed(4, 0), [(images, torch.tensor([0, 1, 2, 0]))]) == {
        "main": HeadError(top1_error=25.0, top5_error=None)
    }


def settings(arch: str, root: Path, *more: str) -> list[str]:
    return [f"arch={arch}", "weights=w.pth", f"data.root={root}", *more]


@pytest.mark.parametrize("workers", [0, 2])
def test_imagenet_is_seen_as_the_released_code_sees_it(tmp_path: Path, workers: int) -> None:
    write_images(tmp_path / "val", 3, 2, (260, 300))
    write_images(tmp_path / "test", 2, 1, (260, 260))
    reference = ImageFolder(
        tmp_path / "val",
        transforms.Compose(
            [
                transforms.Resize(256),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        ),
    )
    images, classes = held_out(parse(settings("resnet18", tmp_path, f"workers={workers}", "batch_size=4")))
    batches = list(images.batches(4))
    assert (classes, len(images)) == (3, 6)
    assert max(len(labels) for _, labels in batches) <= 4 < len(images)
    assert torch.cat([labels for _, labels in batches]).tolist() == [label for _, label in reference]
    torch.testing.assert_close(torch.cat([pixels for pixels, _ in batches]), torch.stack([x for x, _ in reference]))


@pytest.mark.parametrize("data", ["cifar100", "image_folder"])
def test_small_images_are_normalised_as_cifar_is(data: str, tmp_path: Path) -> None:
    write_images(tmp_path / "train", 3, 1, (32, 32))
    write_images(tmp_path / "test", 3, 2, (32, 32))
    reference = ImageFolder(
        tmp_path / "test",
        transforms.Compose(
            [
                transforms.ToTensor(),
                transforms.Normalize((0.4914, 0.48216, 0.44653), (0.24703, 0.24349, 0.26159)),
            ]
        ),
    )
    images, classes = held_out(parse(settings("resnet32", tmp_path, f"data={data}", "workers=0")))
    [(pixels, labels)] = images.batches(50)
    assert (classes, labels.tolist()) == (3, [0, 0, 1, 1, 2, 2])
    torch.testing.assert_close(pixels, torch.stack([x for x, _ in reference]), atol=1e-4, rtol=0)


def test_grey_images_and_a_folder_val_alone_will_do(tmp_path: Path) -> None:
    write_images(tmp_path / "val", 2, 1, (32, 32), grey=True)
    images, _ = held_out(parse(settings("resnet32", tmp_path, "data=image_folder", "workers=0")))
    [(pixels, _)] = images.batches(50)
    assert pixels.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("arch", ["resnet32", "resnet18"])
def test_the_command_prints_what_the_network_gets_wrong(
    arch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    branched = arch == "resnet32"  # the other one with its branches is a file of 200 MB
    heads = ["main", "side1", "side2", "ensemble", "ensemble_softmax"] if branched else ["main"]
    write_images(tmp_path / "val", 6, 2, (32, 32))
    weights = tmp_path / "w.pth"
    write_weights(arch, 6, weights, branched=branched)
    words = [f"arch={arch}", f"weights={weights}", f"data.root={tmp_path}", "data=image_folder", "workers=0"]
    assert main([*words, "batch_size=5"]) == 0
    shown = capsys.readouterr().out
    assert main([*words, "batch_size=5", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    network = load_released(weights, arch)
    images, _ = held_out(parse(words))
    assert (report["arch"], report["images"], report["classes"]) == (arch, 12, 6)
    assert list(report["heads"]) == heads
    [(pixels, labels)] = images.batches(50)
    with torch.no_grad():
        logits = network(pixels).stacked()
    scores = [*logits, logits.mean(0), logits.softmax(-1).mean(0)][: len(heads)]
    rows = [line.split() for line in shown.splitlines()[-len(heads) :]]
    for name, score, row in zip(heads, scores, rows, strict=True):
        top1 = 100 * float((score.argmax(-1) != labels).double().mean())
        top5 = 100 * float((score.argmin(-1) == labels).double().mean())  # of six classes
        assert report["heads"][name] == pytest.approx({"top1_error": top1, "top5_error": top5})
        assert row == [name, f"{top1:.3f}", f"{top5:.3f}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("arhc=resnet18", "unknown word 'arhc'. Did you mean 'arch'? Choose one of: --json, arch, batch_size, data"),
        ("--jsn", "unknown word '--jsn'. Did you mean '--json'?"),
        ("root=x", "unknown word 'root'"),
        ("", "arch is missing: give arch=..."),
        ("arch=resnet18 weights=w.pth", "data.root is missing: give data.root=..."),
        ("arch", "arch has no value: give arch=VALUE"),
        ("arch=resnet18 arch=resnet34", "arch is given twice: arch=resnet18 and arch=resnet34"),
    ],
)
def test_words_that_are_not_understood_are_refused(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(words.split())


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights and images, good and bad."""
    room = tmp_path_factory.mktemp("room")
    write_weights("resnet32", 6, room / "w.pth")
    (room / "cut.pth").write_bytes((room / "w.pth").read_bytes()[:5000])
    write_images(room / "good/test", 6, 1, (32, 32))
    write_images(room / "few/test", 2, 1, (32, 32))
    write_images(room / "broken/test", 6, 1, (32, 32))
    (room / "broken/test/class0/0.png").write_text("no image")
    (room / "bare/test").mkdir(parents=True)
    (room / "empty").mkdir()
    return room


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("arch=resnet19", "unknown architecture 'resnet19'. Did you mean 'resnet18'?"),
        ("arch=resnet18 data=cifar100", "unknown data for resnet18 'cifar100'. Choose one of: image_folder, imagenet"),
        ("data=imagenet", "unknown data for resnet32 'imagenet'."),
        ("batch_size=0", "batch_size=0: give a whole number of at least 1"),
        ("workers=many", "workers=many: give a whole number of at least 0"),
        ("device=gpu", "device=gpu cannot be used here (Expected one of cpu"),
        ("data.root=nowhere", "data.root=nowhere is not a folder"),
        ("weights=nowhere.pth", "nowhere.pth is not a file: give the path of a state dict (.pth)"),
        ("weights=cut.pth", "cut.pth cannot be read: it is cut short or damaged"),
        ("arch=resnet110", "w.pth holds resnet32, not resnet110: give arch=resnet32"),
        ("data.root=empty", "empty has neither test/ nor val/: give data.root=DIR with one"),
        ("data.root=bare", "bare/test must hold one folder of images a class: Couldn't find any class folder"),
        ("data.root=few", "few has 2 classes, w.pth 6: give the data set that it was trained on"),
        ("data.root=broken", "error: broken/test/class0/0.png cannot be read as an image"),
        ("data.root=broken workers=1", "error: broken/test/class0/0.png cannot be read as an image"),
    ],
)
def test_a_mistake_is_one_line(
    words: str, message: str, room: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(room)
    good = {"arch": "resnet32", "weights": "w.pth", "data.root": "good", "data": "image_folder", "workers": "0"}
    given = good | dict(word.split("=") for word in words.split())
    assert main([f"{name}={value}" for name, value in given.items()]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1


def test_the_module_is_a_command_that_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "weights=FILE" in capsys.readouterr().out
    command = [sys.executable, "-m", "dhm.evaluate", "arch=resnet50"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert refused.returncode == 2
    assert refused.stderr == "error: weights is missing: give weights=... (--help lists the words)\n"
