"""The same mathematics, done the way in which the method was released: the arm that speed is held against.

Written from its description, not copied: images are augmented one by one by torchvision's transforms behind a
DataLoader, maps are contiguous, every ordered pair of heads has a softmax and a logarithm of its own, SGD takes one
small operation a parameter and quantity, and every term of the loss is read by the host at every step. Architectures,
initial weights and the objective are those of the recipe.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from dhm.data import RawData
from dhm.network import BranchedNetwork, build_network
from dhm.optim import learning_rate
from dhm.recipe import Recipe

WORKERS = 2


class Images(Dataset[tuple[Tensor, int]]):
    """Training images, each augmented when it is asked for, as torchvision's data sets do.

    Args:
        raw: colour images.
        recipe: its padding, mean and std are used.
        length: how many there are in an epoch; those of `raw` come again.
    """

    def __init__(self, raw: RawData, recipe: Recipe, length: int) -> None:
        self._images = raw.train_images.permute(0, 2, 3, 1).contiguous().numpy()
        self._labels, self._length = raw.train_labels.tolist(), length
        self._transform = v2.Compose(
            [
                v2.ToPILImage(),
                v2.RandomCrop(raw.image_shape, padding=recipe.data.pad),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(recipe.data.mean, recipe.data.std),
            ]
        )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        place = index % len(self._labels)
        image: Tensor = self._transform(np.asarray(self._images[place]))
        return image, self._labels[place]


def loader(raw: RawData, recipe: Recipe, *, length: int, device: str = "cpu") -> DataLoader[tuple[Tensor, Tensor]]:
    """Shuffled batches of normalised float32 images (B, C, H, W) and labels (B,), on their way to a device."""
    images: Any = Images(raw, recipe, length)  # its items are one image and one label; the loader stacks them
    return DataLoader(
        images,
        batch_size=recipe.optim.batch_size,
        shuffle=True,
        num_workers=WORKERS,
        pin_memory=device != "cpu",
    )


class ReleasedWay:
    """A network that is trained as the released scripts train it."""

    def __init__(self, recipe: Recipe, seed: int, *, in_channels: int, num_classes: int, device: str = "cpu") -> None:
        self.recipe, self._device = recipe, device
        self.network: BranchedNetwork = build_network(
            recipe, in_channels=in_channels, num_classes=num_classes, seed=seed
        ).to(device)
        spec = recipe.optim
        self._optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=spec.lr,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            weight_decay=spec.weight_decay,
            foreach=False,
        )

    def train(self, batches: Iterable[tuple[Tensor, Tensor]], moment: float = 0.0) -> list[dict[str, float]]:
        """Take a step for each batch, all at one moment of training (in epochs); returns the terms of every step."""
        self.network.train()
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe.optim, epochs=self.recipe.epochs, moment=moment)
        return [self._step(images, labels) for images, labels in batches]

    def _step(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        images, labels = (part.to(self._device, non_blocking=True) for part in (images, labels))
        heads = self.network(images)
        logits = [heads.main, *heads.sides]
        criterion = nn.CrossEntropyLoss()
        losses = {f"ce/{name}": criterion(z, labels) for name, z in zip(self.recipe.heads, logits, strict=True)}
        mimic = self.recipe.mimic
        total = torch.stack(list(losses.values())).sum()
        if mimic is not None:
            for i, student in enumerate(self.recipe.heads):
                for j, teacher in enumerate(self.recipe.heads):
                    if i != j:
                        term = _divergence(logits[i], logits[j].detach(), mimic.temperature, mimic.smoothing)
                        losses[f"mimic/{student}.{teacher}"] = term
                        total = total + mimic.alpha * term
        self._optimiser.zero_grad()
        total.backward()
        self._optimiser.step()
        read = {name: term.item() for name, term in losses.items()}
        wrong = (logits[0].topk(1, 1).indices[:, 0] != labels).float().sum().item()
        return {**read, "total": total.item(), "wrong": wrong}


def _divergence(student: Tensor, teacher: Tensor, temperature: float, smoothing: float) -> Tensor:
    classes = student.shape[1]
    p = (F.softmax(teacher / temperature, 1) + smoothing) / (1 + classes * smoothing)
    q = (F.softmax(student / temperature, 1) + smoothing) / (1 + classes * smoothing)
    return (p * (p.log() - q.log())).sum(1).mean() * temperature**2
