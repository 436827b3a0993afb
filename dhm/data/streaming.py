"""Images that stay in their files and are decoded while a network trains: sets that no memory holds."""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from dhm.data.batches import Normaliser, check_run
from dhm.data.dataset import Batch, DataError, RunImages
from dhm.data.decoding import Decoder, Files, Key
from dhm.data.fingerprint import fingerprint_of
from dhm.data.folders import ImageFolders
from dhm.data.pillow import PillowDecoder
from dhm.data.split import draw_parts
from dhm.recipe import DataSpec
from dhm.replicas import ALONE, Replica
from dhm.streams import stream

MEASURED = 1000  # training images, evenly spread, that mean and std are measured on where the recipe has none
CHUNK = 100  # of them in a batch
SEEDS = 2**63 - 1


class StreamedData:
    """A data set whose images stay in their files, all seen as RGB (a `DataSet`).

    Args:
        images: the files.
        image_size: height and width that a network sees.
        cache: folder that keeps the fingerprint.
    """

    channels = 3

    def __init__(self, images: ImageFolders, image_size: int, cache: Path | None = None) -> None:
        self.classes, self.num_classes = images.classes, len(images.classes)
        self.image_shape = image_size, image_size
        self._images, self._cache = images, cache
        self._train_labels, self._test_labels = (
            torch.tensor([label for _, label in files]) for files in (images.train, images.test)
        )
        if self.num_classes < 2:
            raise DataError(f"classes {list(self.classes)}: at least two are needed")

    @functools.cached_property
    def fingerprint(self) -> str:
        """See `fingerprint_of`."""
        return fingerprint_of(self._images, self._cache)

    @property
    def sizes(self) -> tuple[int, int]:
        """How many images there are to train on, and to test on."""
        return len(self._train_labels), len(self._test_labels)

    def check(self, spec: DataSpec, seed: int) -> int:
        """See `DataSet.check`."""
        return check_run(spec, seed, self._train_labels, self.classes, self.channels)

    def open(
        self,
        spec: DataSpec,
        seed: int,
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        workers: int = 0,
        channels_last: bool = False,
        replica: Replica = ALONE,
    ) -> RunImages:
        """See `DataSet.open`. Without a mean and a std in the recipe, `MEASURED` of the training images are read."""
        Normaliser.check(spec, self.channels)
        parts = draw_parts(self._train_labels, self.classes, spec, seed)
        reader = Reader(self._images, spec, parts.train, device=device, workers=workers, channels_last=channels_last)
        test = torch.arange(len(self._test_labels)) + len(self._train_labels)
        return RunImages(
            train=StreamedBatches(reader, parts.train, parts.labels, batch_size, replica),
            val=StreamedHeldOut(reader, parts.val, self._train_labels[parts.val], batch_size),
            test=StreamedHeldOut(reader, test, self._test_labels, batch_size),
        )


class Reader:
    """Brings decoded images to the device, some batches ahead of their use where it has workers.

    They travel as bytes, and are normalised there, a batch at once.

    Args:
        train: positions of the training images.
    """

    def __init__(
        self,
        images: ImageFolders,
        spec: DataSpec,
        train: torch.Tensor,
        *,
        device: torch.device | str,
        workers: int,
        channels_last: bool,
    ) -> None:
        self._device = torch.device(device)
        self._decoder = _decoder(Files(images), spec, device=self._device, workers=workers)
        normaliser = Normaliser(spec.mean, spec.std) if spec.mean else self._measured(train)
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._normalise = normaliser.on(device, memory_format)

    def batches(
        self,
        chosen: torch.Tensor,
        labels: torch.Tensor,
        seeds: torch.Tensor | None,
        parts: Sequence[torch.Tensor],
        replica: Replica = ALONE,
    ) -> Iterator[Batch]:
        """The files at positions `chosen` (N,) with their labels (N,), each seen by its seed (N,), if there are seeds;
        of every batch a replica's share.

        Args:
            parts: what a batch has of them, 0 to N - 1 in their order.

        Raises:
            DataError: a file cannot be read.
        """
        images = self._pixels(chosen, seeds, parts, replica)
        truths = map(replica.share, labels.to(self._device).split(list(map(len, parts))))
        for pixels, truth in zip(images, truths, strict=True):
            # into planes first: to compute with colours innermost takes twice as long on a CPU
            yield self._normalise(pixels.to(self._device, non_blocking=True).contiguous()), truth

    def _pixels(
        self,
        chosen: torch.Tensor,
        seeds: torch.Tensor | None,
        parts: Sequence[torch.Tensor],
        replica: Replica = ALONE,
    ) -> Iterator[torch.Tensor]:
        """uint8 images (B, 3, H, W)."""
        return self._decoder.batches(_keys(chosen, seeds, parts, replica), len(parts), max(map(len, parts)))

    def _measured(self, train: torch.Tensor) -> Normaliser:
        spread = torch.linspace(0, len(train) - 1, min(len(train), MEASURED)).round().long()
        parts = torch.arange(len(spread)).split(CHUNK)
        return Normaliser.measured(torch.cat(list(self._pixels(train[spread], None, parts))))


def _keys(
    chosen: torch.Tensor, seeds: torch.Tensor | None, parts: Sequence[torch.Tensor], replica: Replica
) -> Iterator[list[Key]]:
    for part in map(replica.share, parts):
        augmentations = itertools.repeat(None) if seeds is None else seeds[part].tolist()
        yield list(zip(chosen[part].tolist(), augmentations, strict=False))


class StreamedBatches:
    """Training batches: random resized crops, random flips, normalised (`TrainingBatches`).

    Order and augmentation are drawn in the main process and for the whole epoch: an image's augmentation is a seed
    that goes with it to whichever worker decodes it.

    Args:
        chosen: positions (N,) of the files.
        labels: (N,).
        replica: whose share of every batch this is.
    """

    def __init__(
        self, reader: Reader, chosen: torch.Tensor, labels: torch.Tensor, batch_size: int, replica: Replica = ALONE
    ) -> None:
        self._reader, self._chosen, self._labels = reader, chosen, labels
        self._batch_size, self._replica = batch_size, replica

    @property
    def images(self) -> int:
        """Images an epoch, of all replicas together."""
        return len(self._chosen)

    def __len__(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self._chosen) / self._batch_size)

    def epoch(self, seed: int, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch."""
        order = torch.randperm(len(self._chosen), generator=stream(seed, "order", epoch))
        seeds = torch.randint(SEEDS, order.shape, generator=stream(seed, "augment", epoch))
        parts = torch.arange(len(order)).split(self._batch_size)
        yield from self._reader.batches(self._chosen[order], self._labels[order], seeds, parts, self._replica)


class StreamedHeldOut:
    """Images of which the central square is seen, in their order (`HeldOut`).

    Args:
        most: images in a batch: as many as a batch of training has, for which there is memory.
    """

    def __init__(self, reader: Reader, chosen: torch.Tensor, labels: torch.Tensor, most: int) -> None:
        self._reader, self._chosen, self.labels, self._most = reader, chosen, labels, most

    def __len__(self) -> int:
        return len(self._chosen)

    def batches(self, at_most: int) -> Iterator[Batch]:
        """See `HeldOut.batches`."""
        if len(self):
            parts = torch.arange(len(self)).tensor_split(math.ceil(len(self) / min(at_most, self._most)))
            yield from self._reader.batches(self._chosen, self.labels, None, parts)


def _decoder(files: Files, spec: DataSpec, *, device: torch.device, workers: int) -> Decoder:
    """The decoder that a recipe names, on the way to a device.

    Args:
        workers: processes or threads that decode; without any it is done where batches are asked for.
    """
    if spec.decoder == "dali":
        from dhm.data.dali import DaliDecoder  # noqa: PLC0415  (it is an extra, and takes a second to import)

        return DaliDecoder(files, spec, device=device, workers=workers)
    return PillowDecoder(files, spec, device=device, workers=workers)
