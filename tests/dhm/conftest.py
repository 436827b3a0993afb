import pytest
import torch

from dhm.data import RawData, load
from dhm.recipe import DataSpec


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Equal bits need equal threads, and tiny networks are quickest on one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> RawData:
    """The embedded data set, read once."""
    return load(DataSpec(name="digits"))


@pytest.fixture(scope="session")
def few_digits(digits: RawData) -> RawData:
    """The embedded data set with 100 test images, where only training is looked at."""
    return RawData(
        train_images=digits.train_images,
        train_labels=digits.train_labels,
        test_images=digits.test_images[:100],
        test_labels=digits.test_labels[:100],
        classes=digits.classes,
    )
