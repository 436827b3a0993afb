"""From an image file to pixels: decoding, the central square, the random crop of ImageNet training."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from dhm.data.dataset import DataError


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


View = Callable[[Image.Image], Image.Image]
"""What of an image is seen."""

AREA = (0.08, 1.0)  # of a random crop, as a share of the image
RATIO = (3 / 4, 4 / 3)  # of its width to its height
ATTEMPTS = 10


def decode(path: Path, view: View) -> npt.NDArray[np.uint8]:
    """A view of an image file as uint8, (H, W) if it is grey and (H, W, 3) if it is RGB.

    Raises:
        DataError: it cannot be read as an image.
    """
    with readable(path), Image.open(path) as file:
        return np.array(view(_eight_bit(file)))


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """A DataError that names the file, of whatever goes wrong with it inside."""
    try:
        yield
    except Exception as error:  # Pillow's decoders raise what they like: OSError, SyntaxError, struct.error
        raise DataError(f"{path} cannot be read as an image ({error}): replace or remove it") from error


def to_square(image: Image.Image, size: int, shorter: int = 0) -> Image.Image:
    """The shorter side resized to `shorter` (0: to `size`; bilinear, antialiased), then the central square of `size`.

    Pillow does it in integers, so that the pixels, and with them the fingerprint, are the same everywhere.
    """
    from torchvision.transforms import functional as F  # noqa: PLC0415  (2 s to import; readers of images need it)

    resized = F.resize(image, [shorter or size], interpolation=F.InterpolationMode.BILINEAR)
    square: Image.Image = F.center_crop(resized, [size, size])
    return square


def central_part(
    height: int, width: int, size: int, shorter: int = 0
) -> tuple[tuple[float, float], tuple[float, float]]:
    """What `to_square` sees of an image: the first and the last row and column, in its own pixels and parts of them."""
    shorter = shorter or size
    resized = [shorter * side // min(height, width) for side in (height, width)]
    margins = [round((side - size) / 2) for side in resized]
    first, last = (
        (top * height / resized[0], left * width / resized[1])
        for top, left in (margins, [margin + size for margin in margins])
    )
    return first, last


def resized_crop(image: Image.Image, size: int, box: Box) -> Image.Image:
    """A part of the image, resized to a square (bilinear, antialiased)."""
    from torchvision.transforms import functional as F  # noqa: PLC0415  (as above)

    crop: Image.Image = F.resized_crop(image, *box, [size, size], interpolation=F.InterpolationMode.BILINEAR)
    return crop


def random_view(height: int, width: int, seed: int, *, flip: bool) -> tuple[Box, bool]:
    """The part of an image that a seed shows, and whether it is mirrored, which it may be with `flip`."""
    generator = torch.Generator().manual_seed(seed)
    box = crop_box(height, width, generator)
    return box, flip and float(torch.rand(1, generator=generator)) < 0.5


def crop_box(height: int, width: int, generator: torch.Generator) -> Box:
    """A random part; a central one of a fitting shape where no draw fits.

    It is torchvision's RandomResizedCrop, draw for draw. That one draws from torch's global stream, which the workers
    and the main process do not share.
    """
    narrowest, widest = torch.tensor(RATIO).log().tolist()
    for _ in range(ATTEMPTS):
        area = height * width * _uniform(*AREA, generator).item()
        ratio = _uniform(narrowest, widest, generator).exp().item()
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(height - h + 1, (1,), generator=generator))
            return Box(top, int(torch.randint(width - w + 1, (1,), generator=generator)), h, w)
    ratio = min(max(width / height, RATIO[0]), RATIO[1])
    h, w = min(height, round(width / ratio)), min(width, round(height * ratio))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def _uniform(low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.empty(1).uniform_(low, high, generator=generator)


def resize_all(images: torch.Tensor, size: int, shorter: int = 0) -> torch.Tensor:
    """`to_square` of each of (N, C, H, W) uint8 images; size 0 leaves them as they are."""
    if size == 0:
        return images
    from torchvision.transforms import functional as F  # noqa: PLC0415  (as above)

    resized = [to_square(F.to_pil_image(image), size, shorter) for image in images]
    return torch.stack([torch.from_numpy(planes(np.asarray(image))) for image in resized])


def planes(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(H, W) or (H, W, C) pixels as contiguous (C, H, W)."""
    return np.array(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), order="C")


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode in ("1", "L", "LA", "La"):
        return image.convert("L")
    if image.mode.startswith("I;16"):
        # Pillow's own conversion cuts off at 255 instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(f"mode {image.mode}, 32 bits a pixel; 8 or 16 are understood")
    return rgb(image)


def rgb(image: Image.Image) -> Image.Image:
    """The image in colour; one that is in colour as it is, where Pillow would copy it."""
    return image if image.mode == "RGB" else image.convert("RGB")
