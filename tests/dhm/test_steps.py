"""Branches that fork with a probability, and mimicking terms that are left out: what varies from step to step."""

import dataclasses

import pytest
import torch

from dhm.backbones import ARCHITECTURES
from dhm.data import RawData
from dhm.engine import fit
from dhm.fields import replace_at
from dhm.losses import objective
from dhm.network import Heads, build_network
from dhm.optim import make_optimiser
from dhm.recipe import BranchSpec, DataSpec, MimicSpec, OptimSpec, PairSpec, Recipe
from dhm.steps import Step, pairs, steps_of_epoch, whole

BRANCHES = ARCHITECTURES.get("resnet8").branches
HEADS = ("main", "side1", "side2")


def recipe(mimic: MimicSpec | None = None, chances: tuple[float, float] = (1.0, 1.0), **changes: object) -> Recipe:
    branches = tuple(
        dataclasses.replace(branch, fork_probability=chance) for branch, chance in zip(BRANCHES, chances, strict=True)
    )
    made = Recipe(
        arch="resnet8",
        epochs=2,
        branches=branches,
        mimic=mimic or MimicSpec(),
        data=DataSpec(name="digits", train_size=100, pad=1, flip=False),
        optim=OptimSpec(batch_size=20),
    )
    return dataclasses.replace(made, **changes)


def heads(count: int = 3, seed: int = 0) -> tuple[Heads, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 6, 5, generator=generator, dtype=torch.float64).requires_grad_()
    return Heads(logits[0], tuple(logits[1:])), logits


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def kl(logits: torch.Tensor, student: int, teacher: int) -> torch.Tensor:
    q, p = logits.log_softmax(-1)[student], logits.log_softmax(-1)[teacher]
    return (p.exp() * (p - q)).sum(-1).mean()


def test_in_the_main_setting_every_step_is_whole() -> None:
    steps = list(steps_of_epoch(recipe(), 0, 3, 5))
    assert [step.heads for step in steps] == [HEADS] * 5
    assert [step.moment for step in steps] == [3.0, 3.2, 3.4, 3.6, 3.8]
    assert all(not step.stopped for step in steps)


def test_a_branch_forks_as_often_as_its_probability_says_and_draws_alone() -> None:
    both = [step.heads for step in steps_of_epoch(recipe(chances=(0.25, 0.5)), 0, 0, 4000)]
    share = {head: sum(head in heads for heads in both) / len(both) for head in HEADS}
    assert share["main"] == 1.0
    assert share["side1"] == pytest.approx(0.25, abs=0.03)
    assert share["side2"] == pytest.approx(0.5, abs=0.03)
    together = sum({"side1", "side2"} <= set(heads) for heads in both) / len(both)
    assert together == pytest.approx(0.125, abs=0.02), "independent of each other"
    alone = [step.heads for step in steps_of_epoch(recipe(chances=(0.0, 0.5)), 0, 0, 4000)]
    assert [("side2" in heads) for heads in alone] == [("side2" in heads) for heads in both]
    again = [step.heads for step in steps_of_epoch(recipe(chances=(0.25, 0.5)), 0, 0, 4000)]
    assert again == both
    assert [step.heads for step in steps_of_epoch(recipe(chances=(0.25, 0.5)), 0, 1, 4000)] != both
    assert [step.heads for step in steps_of_epoch(recipe(chances=(0.25, 0.5)), 1, 0, 4000)] != both


def test_a_branch_that_never_forks_is_none() -> None:
    assert recipe(chances=(0.0, 1.0)).heads == ("main", "side2")
    never = recipe(chances=(0.0, 0.0))
    assert never == Recipe(arch="resnet8", epochs=2, data=never.data, optim=never.optim)
    assert never.method == "plain"


@pytest.mark.parametrize("chance", [-0.1, 1.5])
def test_probabilities_lie_between_0_and_1(chance: float) -> None:
    with pytest.raises(ValueError, match=rf"fork_probability={chance}: a probability lies in \[0, 1\]"):
        BranchSpec(after=1, blocks=(1, 1), fork_probability=chance)


def test_the_network_computes_only_the_heads_of_the_step() -> None:
    network = build_network(recipe(), in_channels=1, num_classes=10, seed=0).train()
    images = torch.randn(4, 1, 8, 8)
    before = {name: part.clone() for name, part in network.sides["side1"].state_dict().items()}
    some = network(images, ("main", "side2"))
    assert len(some.sides) == 1
    assert torch.equal(some.sides[0], build_network(recipe(), in_channels=1, num_classes=10, seed=0)(images).sides[1])
    after = network.sides["side1"].state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items()), "not even its statistics move"


def test_terms_of_a_head_that_is_not_there_are_not_there() -> None:
    made = recipe(MimicSpec(smoothing=0))
    given, logits = heads(2)
    step = Step(recipe=made, heads=("main", "side2"))
    loss = objective(given, LABELS, made, step)
    assert loss.terms.names == ("ce/main", "ce/side2", "mimic/main.side2", "mimic/side2.main")
    expected = (
        sum(torch.nn.functional.cross_entropy(head, LABELS) for head in logits) + kl(logits, 0, 1) + kl(logits, 1, 0)
    )
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-12)
    alone = objective(Heads(logits[0], ()), LABELS, made, Step(recipe=made, heads=("main",)))
    assert alone.terms.names == ("ce/main",)


def test_inverse_scaling_leaves_the_expectation_of_the_loss() -> None:
    made = recipe(MimicSpec(smoothing=0), chances=(0.25, 0.5), fork_scaling="inverse")
    given, logits = heads(3)
    expected = 0.0
    for first in (False, True):
        for second in (False, True):
            there = [0] + [1] * first + [2] * second
            names = tuple(HEADS[index] for index in there)
            part = Heads(logits[0], tuple(logits[index] for index in there[1:]))
            chance = (0.25 if first else 0.75) * 0.5
            expected += chance * objective(part, LABELS, made, Step(recipe=made, heads=names)).total.item()
    certain = objective(given, LABELS, recipe(MimicSpec(smoothing=0))).total.item()
    assert expected == pytest.approx(certain, rel=1e-12)
    unscaled = objective(given, LABELS, recipe(MimicSpec(smoothing=0), chances=(0.25, 0.5))).total.item()
    assert unscaled == pytest.approx(certain, rel=1e-12)


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("all", {"main.side1", "main.side2", "side1.main", "side1.side2", "side2.main", "side2.side1"}),
        ("sides_to_main", {"main.side1", "main.side2"}),
        ("main_to_sides", {"side1.main", "side2.main"}),
        ("deep_to_shallow", {"side1.main", "side2.main", "side1.side2"}),
        ("shallow_to_deep", {"main.side1", "main.side2", "side2.side1"}),
    ],
)
def test_pairs_by_the_way_that_knowledge_goes(way: str, expected: set[str]) -> None:
    made = recipe(MimicSpec(pairs=way, smoothing=0))
    assert {f"{student}.{teacher}" for student, teacher, _ in pairs(made.mimic, HEADS)} == expected
    given, logits = heads()
    loss = objective(given, LABELS, made)
    assert {name.removeprefix("mimic/") for name in loss.terms.names if name.startswith("mimic/")} == expected
    place = {head: index for index, head in enumerate(HEADS)}
    total = sum(torch.nn.functional.cross_entropy(head, LABELS) for head in logits)
    total = total + sum(kl(logits, *(place[head] for head in pair.split("."))) for pair in expected)
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("deep_to_shallow", {"side1.main", "side1b.main", "side1.side1b"}),
        ("shallow_to_deep", {"main.side1", "main.side1b", "side1b.side1"}),
    ],
)
def test_of_branches_at_one_node_the_later_is_the_deeper(way: str, expected: set[str]) -> None:
    at_one = (BranchSpec(after=1, blocks=(3, 3)), BranchSpec(after=1, blocks=(1, 1)))
    made = recipe(MimicSpec(pairs=way), branches=at_one)
    assert made.heads == ("main", "side1", "side1b") and made.branches == at_one
    assert {f"{student}.{teacher}" for student, teacher, _ in pairs(made.mimic, made.heads)} == expected


def test_listed_pairs_have_their_own_weights() -> None:
    listed = (
        PairSpec(student="main", teacher="side2", weight=0.5),
        PairSpec(student="side1", teacher="main", weight=3),
    )
    made = recipe(MimicSpec(pairs="listed", listed=listed, smoothing=0, alpha=2.0))
    given, logits = heads()
    loss = objective(given, LABELS, made)
    ce = sum(torch.nn.functional.cross_entropy(head, LABELS) for head in logits)
    expected = ce + 2 * (0.5 * kl(logits, 0, 2) + 3 * kl(logits, 1, 0))
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-12)
    assert loss.terms.values[-2].item() == pytest.approx(kl(logits, 0, 2).item()), "recorded before the weights"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: recipe(MimicSpec(pairs="listed")), ["need each other"]),
        (lambda: recipe(MimicSpec(listed=(PairSpec(student="main", teacher="side1"),))), ["need each other"]),
        (
            lambda: recipe(MimicSpec(pairs="listed", listed=(PairSpec(student="main", teacher="side3"),))),
            ["side3", "main, side1, side2"],
        ),
        (lambda: PairSpec(student="main", teacher="main"), ["cannot mimic itself"]),
        (lambda: MimicSpec(pairs="deep"), ["mimic.pairs", "deep_to_shallow"]),
        (lambda: MimicSpec(temperature=0), ["mimic.temperature=0"]),
        (lambda: MimicSpec(alpha_warmup=-1), ["alpha_warmup"]),
        (lambda: recipe(fork_scaling="half"), ["fork_scaling", "inverse"]),
        (lambda: DataSpec(name="digits", label_noise=1.2), ["label_noise=1.2"]),
    ],
)
def test_values_that_cannot_be(make: object, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


def test_alpha_warms_up_by_iteration() -> None:
    made = recipe(MimicSpec(alpha_warmup=2.0, alpha=3.0, smoothing=0))
    given, logits = heads()
    ce = sum(torch.nn.functional.cross_entropy(head, LABELS) for head in logits).item()
    mimic = sum(kl(logits, a, b) for a in range(3) for b in range(3) if a != b).item()
    for moment, share in ((0.0, 0.0), (0.5, 0.25), (1.5, 0.75), (2.0, 1.0), (9.0, 1.0)):
        step = dataclasses.replace(whole(made), moment=moment)
        assert objective(given, LABELS, made, step).total.item() == pytest.approx(ce + 3 * share * mimic, rel=1e-12)


def test_teachers_get_a_gradient_when_it_is_not_stopped() -> None:
    for stop in (True, False):
        made = recipe(MimicSpec(stop_gradient=stop, pairs="sides_to_main", smoothing=0))
        given, logits = heads()
        total = objective(given, LABELS, made).total
        (gradient,) = torch.autograd.grad(total, logits)
        (ce,) = torch.autograd.grad(sum(torch.nn.functional.cross_entropy(head, LABELS) for head in logits), logits)
        assert torch.allclose(gradient[1:], ce[1:]) == stop
        assert not torch.allclose(gradient[0], ce[0])


def test_a_random_subset_of_terms_is_left_out() -> None:
    made = recipe(MimicSpec(random_stop=True, smoothing=0))
    steps = list(steps_of_epoch(made, 0, 0, 3000))
    sizes = [len(step.stopped) for step in steps]
    assert max(sizes) <= 5, "int(u * 6) draws never reach six"
    # int(u * 6) is uniform on 0..5; of k draws with replacement 6 (1 - (5/6)^k) differ on average.
    expected = sum(6 * (1 - (5 / 6) ** k) for k in range(6)) / 6
    assert sum(sizes) / len(sizes) == pytest.approx(expected, abs=0.1)
    step = next(step for step in steps if len(step.stopped) == 2)
    given, logits = heads()
    kept = {"main.side1", "main.side2", "side1.main", "side1.side2", "side2.main", "side2.side1"} - step.stopped
    place = {head: index for index, head in enumerate(HEADS)}
    total = sum(torch.nn.functional.cross_entropy(head, LABELS) for head in logits)
    total = total + sum(kl(logits, *(place[head] for head in pair.split("."))) for pair in kept)
    assert objective(given, LABELS, made, step).total.item() == pytest.approx(total.item(), rel=1e-12)


def test_forking_by_chance_trains_repeats_and_resumes(few_digits: RawData) -> None:
    made = recipe(chances=(0.5, 0.5))
    first, second = (fit(made, 0, data=few_digits) for _ in range(2))
    assert [record.metrics for record in first.history] == [record.metrics for record in second.history]
    certain = fit(recipe(), 0, data=few_digits)
    assert first.history[0].metrics != certain.history[0].metrics
    assert set(first.history[0].metrics) == set(certain.history[0].metrics)


def test_a_probability_of_one_is_the_main_setting_bit_for_bit(few_digits: RawData) -> None:
    scaled = replace_at(recipe(), "fork_scaling", "inverse")
    weights = [fit(made, 0, data=few_digits).network.state_dict() for made in (recipe(), scaled)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    ("arch", "node", "blocks", "channels"),
    [("resnet20", (2, 1), (2, 3), 32), ("wrn_16_8", (1, 1), (1, 2, 2), 128), ("densenet_10_6", (2, 1), (1, 2), 34)],
)
def test_a_branch_can_fork_inside_a_stage(
    arch: str, node: tuple[int, int], blocks: tuple[int, ...], channels: int
) -> None:
    branch = BranchSpec(after=node[0], block=node[1], blocks=blocks)
    made = Recipe(arch=arch, epochs=1, data=DataSpec(name="digits"), branches=(branch,), mimic=MimicSpec())
    name = f"side{node[0]}_{node[1]}"
    assert made.heads == ("main", name)
    network = build_network(made, in_channels=1, num_classes=10, seed=0).eval()
    seen: list[torch.Tensor] = []
    network.sides[name].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 1, 8, 8)
    out = network(images)
    assert out.sides[0].shape == (2, 10)
    assert torch.equal(out.main, network.main_only()(images))
    maps = network.backbone.stem(images)
    for stage in list(network.backbone.stages)[: node[0] - 1]:
        maps = stage(maps)
    for block in list(network.backbone.stages[node[0] - 1])[: node[1]]:
        maps = block(maps)
    assert torch.equal(seen[0], maps)
    assert maps.shape[1] == channels
    plain = Recipe(arch=arch, epochs=1, data=DataSpec(name="digits"))
    alone = build_network(plain, in_channels=1, num_classes=10, seed=0).main_only().state_dict()
    assert all(torch.equal(value, alone[key]) for key, value in network.main_only().state_dict().items())


@pytest.mark.parametrize(
    ("after", "block", "words"),
    [(1, 1, ["has 1 block(s)", "choose a node among 1, 2"]), (2, 4, ["block 4 inside stage 2"]), (4, 1, ["stage 4"])],
)
def test_nodes_inside_a_stage_that_do_not_exist(after: int, block: int, words: list[str]) -> None:
    branch = BranchSpec(after=after, block=block, blocks=(1, 1))
    made = Recipe(arch="resnet8", epochs=1, data=DataSpec(name="digits"), branches=(branch,))
    with pytest.raises(ValueError) as caught:
        build_network(made, in_channels=1, num_classes=10)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("seed", range(4))
def test_a_branch_may_be_absent_at_the_first_step(seed: int, few_digits: RawData) -> None:
    made = recipe(chances=(0.2, 0.2), fork_scaling="inverse")
    result = fit(made, seed, data=few_digits)
    assert [record.epoch for record in result.history] == [0, 1]


def test_momenta_that_start_at_zero_change_nothing() -> None:
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2)]
    ours = make_optimiser([weights[0]], OptimSpec())
    theirs = torch.optim.SGD([weights[1]], lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    for step in range(3):
        for weight, optimiser in zip(weights, (ours, theirs), strict=True):
            weight.grad = torch.cos(weight.detach() * (step + 1))
            optimiser.step()
    assert torch.equal(*weights)
