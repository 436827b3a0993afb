"""Images read by NVIDIA DALI (`data.decoder=dali`): a JPEG's crop alone is decoded, and resized by a GPU, if there is.

Crops and flips are those of every decoder, drawn by an image's seed, and so are the decoded pixels. What differs is how
they are resized: Pillow rounds after each of its two passes, DALI at the end, and at a crop's edge, where the filter
reaches beyond it, DALI repeats the last pixel. On a CPU it is no quicker than Pillow.

JPEGs are decoded by the CPU even beside a GPU, so that no model of GPU has pixels of its own.
"""

import io
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.dlpack import from_dlpack

from dhm.data.dataset import DataError
from dhm.data.decoding import Files, Key
from dhm.data.pixels import Box, central_part, decode, random_view, readable, rgb
from dhm.recipe import DataSpec

INSTALL = "data.decoder=dali needs NVIDIA DALI: pip install 'dhm-ablation[dali]'; or leave it out"
AHEAD = 2  # batches that are read ahead of their use


def installed() -> None:
    """A DataError that says what to install, where DALI cannot be imported."""
    try:
        import nvidia.dali  # noqa: F401, PLC0415
    except ImportError as error:
        raise DataError(INSTALL) from error


class DaliDecoder:
    """A DALI pipeline (a `Decoder`)."""

    def __init__(self, files: Files, spec: DataSpec, *, device: torch.device, workers: int) -> None:
        self._files, self._spec, self._device = files, spec, device
        self._threads = max(1, workers)

    def batches(self, keys: Iterable[list[Key]], count: int, batch_size: int) -> Iterator[torch.Tensor]:
        """See `Decoder.batches`. They are on the device."""
        reading: deque[list[Key]] = deque(maxlen=AHEAD + 1)

        def inputs() -> Iterator[tuple[Any, ...]]:
            for batch in keys:
                reading.append(batch)
                yield tuple(zip(*(self._input(*key) for key in batch), strict=True))

        pipeline = self._pipeline(inputs(), batch_size)
        for _ in range(count):
            try:
                (images,) = pipeline.run()
            except RuntimeError as error:
                if "memory" in str(error):  # of the GPU: no fault of the images
                    raise
                for index, _ in itertools.chain.from_iterable(reading):
                    decode(self._files[index], rgb)  # which names the one that cannot be read
                said = " ".join(str(error).split())
                raise DataError(
                    f"DALI cannot read the images, and Pillow can: leave data.decoder out ({said})"
                ) from error
            yield from_dlpack(images.as_tensor()).permute(0, 3, 1, 2)

    def _input(self, index: int, seed: int | None) -> tuple[npt.NDArray[Any], ...]:
        """A file's content; the part to decode, as its corner and its shape; where in that part what is seen begins and
        ends; whether it is mirrored."""
        path, spec = self._files[index], self._spec
        with readable(path):
            content = path.read_bytes()
            with Image.open(io.BytesIO(content)) as image:
                width, height = image.size
        box, mirrored = Box(0, 0, height, width), False
        if seed is None:
            start, end = central_part(height, width, spec.image_size, spec.resize)
        else:
            box, mirrored = random_view(height, width, seed, flip=spec.flip)
            start, end = (0.0, 0.0), (float(box.height), float(box.width))
        part = np.array(box, np.int64)
        return (
            np.frombuffer(content, np.uint8),
            part[:2],
            part[2:],
            np.array(start, np.float32),
            np.array(end, np.float32),
            np.array(mirrored, np.int32),
        )

    def _pipeline(self, inputs: Iterator[tuple[Any, ...]], batch_size: int) -> Any:
        from nvidia.dali import fn, types  # noqa: PLC0415  (it is an extra)
        from nvidia.dali.pipeline import Pipeline  # noqa: PLC0415  (as above)

        on_gpu = self._device.type == "cuda"
        number = torch.cuda.current_device() if self._device.index is None and on_gpu else self._device.index
        pipeline = Pipeline(batch_size, self._threads, number if on_gpu else None, prefetch_queue_depth=AHEAD)
        with pipeline:
            content, corner, shape, start, end, mirrored = fn.external_source(
                inputs,
                num_outputs=6,
                dtype=[types.UINT8, types.INT64, types.INT64, types.FLOAT, types.FLOAT, types.INT32],
                ndim=[1, 1, 1, 1, 1, 0],
            )
            images = fn.decoders.image_slice(
                content,
                corner,
                shape,
                axis_names="HW",
                normalized_anchor=False,
                normalized_shape=False,
                output_type=types.RGB,
                adjust_orientation=False,
            )
            resized = fn.resize(
                images.gpu() if on_gpu else images,
                size=[self._spec.image_size] * 2,
                roi_start=start,
                roi_end=end,
                interp_type=types.INTERP_LINEAR,
                antialias=True,
            )
            pipeline.set_outputs(fn.flip(resized, horizontal=mirrored))
        pipeline.build()
        return pipeline
