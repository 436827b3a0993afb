"""Images read by Pillow, in worker processes (`data.decoder=pillow`)."""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset, default_collate

from dhm.data.dataset import DataError
from dhm.data.decoding import Files, Key
from dhm.data.pixels import decode, random_view, resized_crop, rgb, to_square
from dhm.recipe import DataSpec


class PillowDecoder:
    """Pillow, in worker processes that are some batches ahead (a `Decoder`)."""

    def __init__(self, files: Files, spec: DataSpec, *, device: torch.device, workers: int) -> None:
        self._images, self._workers = _Images(files, spec), workers
        self._pinned = device.type == "cuda"

    def batches(self, keys: Iterable[list[Key]], count: int, batch_size: int) -> Iterator[torch.Tensor]:
        """See `Decoder.batches`."""
        loader = DataLoader(
            self._images,
            batch_sampler=keys,
            num_workers=min(self._workers, count),
            collate_fn=_as_it_is,
            pin_memory=self._pinned,
            generator=torch.Generator(),  # else it would draw from the global stream
        )
        for images in loader:
            if isinstance(images, DataError):
                raise images
            yield images.permute(0, 3, 1, 2)


class _Images(Dataset[Any]):
    """What the keys of a batch name; a worker has a copy."""

    def __init__(self, files: Files, spec: DataSpec) -> None:
        self._files, self._spec = files, spec

    def __getitems__(self, keys: list[Key]) -> torch.Tensor | DataError:
        """uint8 images (B, H, W, 3), in a worker put straight where the main process sees them.

        An error is returned: raised in a worker, it would lose its message.
        """
        try:
            images: torch.Tensor = default_collate([torch.from_numpy(self._decode(*key)) for key in keys])
        except DataError as error:
            return error
        return images

    def _decode(self, index: int, seed: int | None) -> npt.NDArray[np.uint8]:
        return decode(self._files[index], functools.partial(_seen, spec=self._spec, seed=seed))


def _seen(image: Image.Image, *, spec: DataSpec, seed: int | None) -> Image.Image:
    image = rgb(image)
    if seed is None:
        return to_square(image, spec.image_size, spec.resize)
    box, mirrored = random_view(image.height, image.width, seed, flip=spec.flip)
    crop = resized_crop(image, spec.image_size, box)
    return ImageOps.mirror(crop) if mirrored else crop


def _as_it_is(batch: Any) -> Any:
    return batch
