import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dhm import losses
from dhm.losses import TERMS, Terms, mimicking_matrix, objective
from dhm.network import Heads
from dhm.recipe import BranchSpec, DataSpec, MimicSpec, Recipe, TermSpec

Array = np.ndarray


def recipe(heads: int, mimic: MimicSpec | None = None, *terms: TermSpec) -> Recipe:
    branches = tuple(BranchSpec(after=node, blocks=(1,)) for node in range(1, heads))
    return Recipe(arch="resnet8", epochs=1, data=DataSpec(name="digits"), branches=branches, mimic=mimic, terms=terms)


def draw(heads: int, scale: float, batch: int = 6, classes: int = 5) -> tuple[Array, Array]:
    generator = np.random.default_rng(heads)
    return scale * generator.standard_normal((heads, batch, classes)), generator.integers(0, classes, batch)


def as_heads(logits: Array | Tensor) -> Heads:
    tensor = torch.as_tensor(logits)
    return Heads(tensor[0], tuple(tensor[1:]))


def softmax(row: Array) -> list[float]:
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]


def divergence(teacher: Array, student: Array, temperature: float, smoothing: float) -> float:
    """T^2 KL(teacher || student) of one image, as the released code smooths it."""
    classes = len(teacher)
    p, q = (
        [(value + smoothing) / (1 + classes * smoothing) for value in softmax(row / temperature)]
        for row in (teacher, student)
    )
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def expected_terms(logits: Array, labels: Array, temperature: float, smoothing: float) -> dict[str, float]:
    """All terms from the formula, image by image."""
    heads, batch, _ = logits.shape
    names = ["main", *(f"side{node}" for node in range(1, heads))]
    terms = {}
    for i in range(heads):
        terms[f"ce/{names[i]}"] = -sum(math.log(softmax(logits[i, b])[labels[b]]) for b in range(batch)) / batch
    for i in range(heads):
        for j in range(heads):
            if i != j:
                each = [divergence(logits[j, b], logits[i, b], temperature, smoothing) for b in range(batch)]
                terms[f"mimic/{names[i]}.{names[j]}"] = sum(each) / batch
    return terms


@pytest.mark.parametrize("heads", [2, 3, 4])
@pytest.mark.parametrize("scale", [1, 3, 10])
@pytest.mark.parametrize("smoothing", [1e-8, 0])
@pytest.mark.parametrize("temperature", [1, 3])
def test_terms_and_total_have_the_values_of_the_formula(
    heads: int, scale: float, smoothing: float, temperature: float
) -> None:
    logits, labels = draw(heads, scale)
    wanted = expected_terms(logits, labels, temperature, smoothing)
    mimic = MimicSpec(alpha=0.7, temperature=temperature, smoothing=smoothing)
    loss = objective(as_heads(logits), torch.from_numpy(labels), recipe(heads, mimic))
    assert list(loss.terms.names) == list(wanted)
    assert loss.terms.values.tolist() == pytest.approx(list(wanted.values()), rel=2e-5)
    total = sum((0.7 if name.startswith("mimic") else 1.0) * value for name, value in wanted.items())
    assert float(loss.total) == pytest.approx(total, rel=2e-5)


def test_smoothing_bounds_the_divergence_at_large_logits() -> None:
    certain = torch.tensor([[[60.0, 0.0]], [[0.0, 60.0]]])
    exact = mimicking_matrix(certain)[0, 1]
    smoothed = mimicking_matrix(certain, smoothing=1e-8)[0, 1]
    assert float(exact) == pytest.approx(60, rel=1e-6)
    assert float(smoothed) == pytest.approx(math.log(1e8), rel=1e-6)


@pytest.mark.parametrize(
    ("classes", "expected"), [(10, (3e-7, 1e-4, 0.21)), (100, (3e-6, 7e-4, 0.35)), (1000, (3e-5, 4e-3, 0.46))]
)
def test_how_much_smoothing_takes_off_a_divergence(classes: int, expected: tuple[float, ...]) -> None:
    """As docs/method.md has it, to the digits given there."""
    normal = torch.randn(2, 4000, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for scale, share in zip((1, 3, 10), expected, strict=True):
        exact, smoothed = (float(mimicking_matrix(scale * normal, smoothing=e)[0, 1]) for e in (0.0, 1e-8))
        assert (exact - smoothed) / exact == pytest.approx(share, rel=0.15)


def test_a_divergence_worked_out_by_hand() -> None:
    # p = (1/2, 1/2), q = (3/4, 1/4)
    matrix = mimicking_matrix(torch.tensor([[[0.0, 0.0]], [[math.log(3), 0.0]]], dtype=torch.float64))
    student_q = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    student_p = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    torch.testing.assert_close(matrix, torch.tensor([[0, student_p], [student_q, 0]], dtype=torch.float64))


def test_heads_that_agree_have_nothing_to_mimic() -> None:
    row = torch.randn(1, 8, 10, generator=torch.Generator().manual_seed(0))
    for smoothing in (0.0, 1e-8):
        assert not mimicking_matrix(row.repeat(3, 1, 1), smoothing=smoothing, temperature=2).any()


def test_small_gaps_are_not_lost_in_rounding() -> None:
    logits, _ = draw(1, 3, batch=4, classes=100)
    near = np.concatenate([logits, logits + 1e-3 * np.random.default_rng(9).standard_normal(logits.shape)])
    wanted = sum(divergence(near[1, b], near[0, b], 1, 0) for b in range(4)) / 4
    assert wanted < 1e-6
    assert float(mimicking_matrix(torch.tensor(near, dtype=torch.float32))[0, 1]) == pytest.approx(wanted, rel=0.1)


def test_names_of_terms_follow_the_heads() -> None:
    two_at_one = dataclasses.replace(
        recipe(3, MimicSpec()), branches=(BranchSpec(after=1, blocks=(1, 1)), BranchSpec(after=1, blocks=(2, 1)))
    )
    logits, labels = draw(3, 1)
    assert objective(as_heads(logits), torch.from_numpy(labels), two_at_one).terms.names == (
        "ce/main",
        "ce/side1",
        "ce/side1b",
        "mimic/main.side1",
        "mimic/main.side1b",
        "mimic/side1.main",
        "mimic/side1.side1b",
        "mimic/side1b.main",
        "mimic/side1b.side1",
    )


def test_plain_and_deep_supervision_have_cross_entropies_only() -> None:
    for heads in (1, 3):
        logits, labels = draw(heads, 2)
        loss = objective(as_heads(logits), torch.from_numpy(labels), recipe(heads))
        wanted = [value for name, value in expected_terms(logits, labels, 1, 0).items() if name.startswith("ce")]
        assert loss.terms.values.tolist() == pytest.approx(wanted, rel=1e-5)
        assert float(loss.total) == pytest.approx(sum(wanted), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0, 1e-8, 1e-3])
@pytest.mark.parametrize("temperature", [1, 3])
def test_a_pair_teaches_its_student_only_with_the_slope_of_the_formula(smoothing: float, temperature: float) -> None:
    values, _ = draw(3, 2, batch=3, classes=4)
    for student, teacher in [(0, 1), (2, 0), (1, 2)]:
        logits = torch.tensor(values, requires_grad=True)
        mimicking_matrix(logits, temperature=temperature, smoothing=smoothing)[student, teacher].backward()
        assert logits.grad is not None
        untouched = [head for head in range(3) if head != student]
        assert not logits.grad[untouched].any()
        step = 1e-6
        for image, place in np.ndindex(3, 4):
            slopes = []
            for sign in (1, -1):
                moved = values[student, image].copy()
                moved[place] += sign * step
                slopes.append(sign * divergence(values[teacher, image], moved, temperature, smoothing))
            wanted = sum(slopes) / (2 * step) / 3
            assert float(logits.grad[student, image, place]) == pytest.approx(wanted, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("alpha", [0, 0.5, 2])
def test_the_gradient_of_the_whole_objective(alpha: float) -> None:
    """For the exact KL at T: of CE p - onehot, of a pair T (p_i - p_j) with both softened; teachers none."""
    temperature = 3.0
    values, labels = draw(4, 2)
    logits = torch.tensor(values, dtype=torch.float32, requires_grad=True)
    mimic = MimicSpec(alpha=alpha, temperature=temperature, smoothing=0)
    objective(as_heads(logits), torch.from_numpy(labels), recipe(4, mimic)).total.backward()
    wanted = np.zeros_like(values)
    batch = len(labels)
    for i, b in np.ndindex(4, batch):
        wanted[i, b] = softmax(values[i, b])
        wanted[i, b, labels[b]] -= 1
        own = np.array(softmax(values[i, b] / temperature))
        for j in range(4):
            if j != i:
                wanted[i, b] += alpha * temperature * (own - softmax(values[j, b] / temperature))
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), wanted / batch, rtol=1e-4, atol=1e-6)


def test_alpha_zero_has_the_loss_and_the_gradient_of_deep_supervision_bit_for_bit() -> None:
    values, labels = draw(3, 3)
    results = []
    for wanted in (recipe(3), recipe(3, MimicSpec(alpha=0))):
        logits = torch.tensor(values, dtype=torch.float32, requires_grad=True)
        loss = objective(as_heads(logits), torch.from_numpy(labels), wanted)
        loss.total.backward()
        results.append((loss, logits.grad))
    (dsl, dsl_grad), (dhm, dhm_grad) = results
    assert torch.equal(dsl.total, dhm.total)
    assert torch.equal(dsl_grad, dhm_grad)
    # what is not trained on is measured all the same
    assert len(dhm.terms.names) == 9
    assert float(dhm.terms.values[3:].min()) > 0


def test_a_weight_of_zero_adds_nothing_even_where_its_term_is_not_finite() -> None:
    values, labels = draw(2, 1)
    values[1, 0, 0] = -math.inf  # the exact KL of this head is infinite, its cross-entropy is not
    labels[0] = 1
    loss = objective(as_heads(values), torch.from_numpy(labels), recipe(2, MimicSpec(alpha=0, smoothing=0)))
    assert not loss.terms.values.isfinite().all()
    assert loss.total.isfinite()


def test_terms_are_detached() -> None:
    values, labels = draw(2, 1)
    logits = torch.tensor(values, requires_grad=True)
    loss = objective(as_heads(logits), torch.from_numpy(labels), recipe(2, MimicSpec()))
    assert loss.total.requires_grad
    assert not loss.terms.values.requires_grad


def test_logits_in_bf16_give_a_float32_loss() -> None:
    values, labels = draw(3, 3)
    low = torch.tensor(values).bfloat16()
    loss = objective(as_heads(low), torch.from_numpy(labels), recipe(3, MimicSpec()))
    assert loss.total.dtype == loss.terms.values.dtype == torch.float32
    wanted = expected_terms(low.double().numpy(), labels, 1, 1e-8)
    assert loss.terms.values.tolist() == pytest.approx(list(wanted.values()), rel=1e-5)


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor, Tensor, Recipe], Terms]:
    """A term of one's own: the mean square of each head's logits, registered for the length of a test."""

    def mean_square(logits: Tensor, labels: Tensor, recipe: Recipe) -> Terms:
        return Terms(tuple(f"spread/{head}" for head in recipe.heads), logits.square().mean((1, 2)))

    monkeypatch.setattr(TERMS, "_values", dict(TERMS._values))
    return TERMS.register("spread", mean_square)


@pytest.mark.usefixtures("spread")
def test_a_term_of_ones_own_is_registered_and_named_in_the_recipe() -> None:
    values, labels = draw(2, 2)
    wanted = recipe(2, MimicSpec(), TermSpec(name="spread", weight=0.25))
    loss = objective(as_heads(values), torch.from_numpy(labels), wanted)
    without = objective(as_heads(values), torch.from_numpy(labels), recipe(2, MimicSpec()))
    assert loss.terms.names == (*without.terms.names, "spread/main", "spread/side1")
    squares = (values**2).mean((1, 2))
    assert loss.terms.values[-2:].tolist() == pytest.approx(squares.tolist(), rel=1e-5)
    assert float(loss.total) == pytest.approx(float(without.total) + 0.25 * squares.sum(), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.1, 0.6])
def test_label_smoothing_is_that_of_torch_for_every_head(smoothing: float) -> None:
    values, labels = draw(3, 3)
    logits, classes = torch.from_numpy(values), torch.from_numpy(labels)
    loss = objective(as_heads(logits), classes, recipe(3, None, TermSpec(name="label_smoothing", weight=smoothing)))
    wanted = sum(functional.cross_entropy(head, classes, label_smoothing=smoothing) for head in logits)
    assert float(loss.total) == pytest.approx(float(wanted), rel=1e-6)
    assert loss.terms.names[-3:] == tuple(f"label_smoothing/{head}" for head in ("main", "side1", "side2"))


@pytest.mark.parametrize("terms", [("ce",), ("mimic",), ("spread", "spread")])
@pytest.mark.usefixtures("spread")
def test_a_term_that_is_asked_for_twice_is_refused(terms: tuple[str, ...]) -> None:
    wanted = recipe(2, MimicSpec(), *(TermSpec(name=name) for name in terms))
    with pytest.raises(ValueError, match=f"loss term '{terms[0]}' is asked for twice: leave it out of terms"):
        losses.weights(wanted)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (torch.ones(2), "it returned Tensor"),
        (Terms(("own/main", "own/side1"), torch.ones(2, 4)), r"it returned 2 name\(s\) and values of \(2, 4\)"),
        (Terms(("own/main",), torch.tensor(1.0)), r"it returned 1 name\(s\) and values of \(\)"),
    ],
)
def test_a_term_that_returns_something_else_is_told_what_to_return(
    monkeypatch: pytest.MonkeyPatch, returned: object, told: str
) -> None:
    monkeypatch.setattr(TERMS, "_values", {**TERMS._values, "own": lambda logits, labels, step: returned})
    values, labels = draw(2, 2)
    with pytest.raises(ValueError, match=rf"loss term 'own' is to return Terms\(names, values\) .*{told}"):
        objective(as_heads(values), torch.from_numpy(labels), recipe(2, None, TermSpec(name="own")))


def test_an_unknown_term_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"unknown loss term 'mimik'\. Did you mean 'mimic'\? Choose one of: ce, .*mimic"
    ):
        losses.weights(recipe(2, None, TermSpec(name="mimik")))
