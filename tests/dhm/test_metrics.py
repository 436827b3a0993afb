import numpy as np
import pytest
import torch

from dhm.metrics import RunningMean, top_k_wrong

LOGITS = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0], [1.0, 2.0, 3.0], [9.0, 8.0, 7.0]])
LABELS = torch.tensor([0, 2, 0, 2])


@pytest.mark.parametrize(
    ("k", "wrong"),
    [(1, [False, True, True, True]), (2, [False, False, True, True]), (3, [False] * 4), (5, [False] * 4)],
)
def test_an_image_is_wrong_where_its_class_is_not_among_the_k_largest(k: int, wrong: list[bool]) -> None:
    assert top_k_wrong(LOGITS, LABELS, k).tolist() == wrong


def test_heads_are_judged_one_by_one() -> None:
    stacked = torch.stack((LOGITS, LOGITS.flip(-1)))
    both = top_k_wrong(stacked, LABELS, 1)
    assert both.shape == (2, 4)
    assert both[0].tolist() == top_k_wrong(LOGITS, LABELS, 1).tolist()
    assert both[1].tolist() == [True, True, False, False]


def test_top_k_agrees_with_sorting_by_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 12, generator=generator)
    labels = torch.randint(12, (200,), generator=generator)
    ranked = np.argsort(-logits.numpy(), axis=1)
    for k in (1, 5):
        expected = [label not in row[:k] for row, label in zip(ranked, labels.numpy(), strict=True)]
        assert top_k_wrong(logits, labels, k).tolist() == expected


def test_the_mean_weighs_a_batch_by_its_images() -> None:
    mean = RunningMean()
    mean.add(torch.tensor([1.0, 10.0]), 3)
    mean.add(torch.tensor([5.0, 20.0]), 1)
    assert mean.read() == [2.0, 12.5]


def test_the_mean_is_kept_in_double_precision() -> None:
    mean = RunningMean()
    for _ in range(1000):
        mean.add(torch.tensor(0.1), 1)
    mean.add(torch.tensor(2.0**30), 1)
    exact = (1000 * float(np.float32(0.1)) + 2.0**30) / 1001
    assert mean.read() == [pytest.approx(exact, rel=1e-12)]


def test_the_mean_holds_no_graph() -> None:
    mean = RunningMean()
    mean.add(torch.ones(1, requires_grad=True) * 2, 1)
    assert mean.read() == [2.0]
    assert mean._sum is not None
    assert not mean._sum.requires_grad


def test_reading_an_empty_mean_is_refused() -> None:
    with pytest.raises(AssertionError, match="nothing was added"):
        RunningMean().read()
