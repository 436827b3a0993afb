import copy
import dataclasses
import io
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from dhm.backbones import ARCHITECTURES
from dhm.backbones.adapter import PreactivationBottleneck, TorchvisionBackbone, cuts_of
from dhm.backbones.cuts import find_cuts, split
from dhm.cost import measure, on_meta, topology
from dhm.data import RawData
from dhm.engine import fit
from dhm.network import build_network
from dhm.recipe import BranchSpec, DataSpec, MimicSpec, OptimSpec, Recipe
from dhm.streams import stream

# Stages: channels, stride against the image, blocks. Parameters as torchvision documents them for 1000 classes.
KNOWN = {
    "resnet18": ([(64, 4, 2), (128, 8, 2), (256, 16, 2), (512, 32, 2)], 11689512),
    "resnext50_32x4d": ([(256, 4, 3), (512, 8, 4), (1024, 16, 6), (2048, 32, 3)], 25028904),
    "densenet121": ([(256, 4, 1), (512, 8, 1), (1024, 16, 1), (1024, 32, 1)], 7978856),
    "mobilenet_v3_small": ([(16, 4, 1), (24, 8, 2), (48, 16, 5), (96, 32, 3)], 2542856),
    "efficientnet_b0": ([(16, 2, 1), (24, 4, 2), (40, 8, 2), (112, 16, 6), (320, 32, 5)], 5288548),
    "convnext_tiny": ([(96, 4, 3), (192, 8, 3), (384, 16, 9), (768, 32, 3)], 28589128),
    "regnet_y_400mf": ([(48, 4, 1), (104, 8, 3), (208, 16, 6), (440, 32, 6)], 4344144),
    # the patch merging before a Swin's stage is one of its blocks
    "swin_t": ([(96, 4, 2), (192, 8, 3), (384, 16, 7), (768, 32, 3)], 28288354),
    "squeezenet1_1": ([(128, 4, 2), (256, 8, 2), (512, 16, 4)], 1235496),
    "vgg11_bn": ([(64, 1, 1), (128, 2, 1), (256, 4, 2), (512, 8, 2), (512, 16, 2)], 132868840),
    "googlenet": ([(64, 2, 1), (192, 4, 2), (480, 8, 2), (832, 16, 5), (1024, 32, 2)], 6624904),
}
HEAVY = ("vgg11_bn", "googlenet")  # slow to make, and cut as others are
MADE = [name for name in KNOWN if name not in HEAVY]
ALL = models.list_models(module=models)
REFUSED = [name for name in ALL if name.startswith(("vit_", "maxvit_"))]


def backbone(name: str, *, seed: int | None = 0, in_channels: int = 3) -> TorchvisionBackbone:
    made = ARCHITECTURES.get(f"torchvision/{name}").build(in_channels=in_channels, num_classes=5)
    assert isinstance(made, TorchvisionBackbone)
    if seed is not None:
        made.initialise(made, stream(seed, "init", "main"))
    return made


def original(name: str) -> nn.Module:
    options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    return models.get_model(name, weights=None, num_classes=5, **options)


def recipe(name: str, **changes: object) -> Recipe:
    branches = ARCHITECTURES.get(f"torchvision/{name}").branches
    made = Recipe(arch=f"torchvision/{name}", epochs=1, data=DataSpec(name="digits"), branches=branches)
    return dataclasses.replace(made, **changes)


def images(count: int = 2, size: int = 40, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def assert_equal(first: Iterable[Tensor], second: Iterable[Tensor]) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", KNOWN)
def test_stages_of_known_models(name: str) -> None:
    stages, parameters = KNOWN[name]
    with torch.device("meta"):
        made = ARCHITECTURES.get(f"torchvision/{name}").build(num_classes=1000)
    assert [(info.channels, info.stride, info.depth) for info in made.info] == stages
    assert made.depths == tuple(depth for _, _, depth in stages)
    assert count(made) == parameters


@pytest.mark.parametrize("name", KNOWN)
def test_every_node_hands_on_the_maps_that_are_declared_and_every_weight_is_trained(name: str) -> None:
    network = on_meta(recipe(name), num_classes=5).train()
    maps = network.backbone.stem(torch.empty(2, 3, 256, 256, device="meta"))
    for index, stage in enumerate(network.backbone.stages):
        for block, part in enumerate(stage, start=1):
            maps = part(maps)
            assert maps.shape[1] == network.backbone.node_channels(index, block)
        info = network.backbone.info[index]
        assert maps.shape[:2] == (2, info.channels)
        # SqueezeNet's poolings lose a pixel or two at the border
        assert maps.shape[2] == maps.shape[3] == pytest.approx(256 / info.stride, abs=2 if name[0] == "s" else 0)
        assert network.backbone.node_channels(index, 0) == info.channels
    network(torch.empty(2, 3, 64, 64, device="meta")).stacked().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("training", [True, False])
def test_the_main_branch_is_the_torchvision_model_bit_for_bit(name: str, training: bool) -> None:
    ours, theirs = backbone(name).train(training), original(name).train(training)
    theirs.load_state_dict(ours.torchvision_state_dict(), strict=True)
    logits = []
    for model in (ours, theirs):
        torch.manual_seed(0)  # dropout and stochastic depth draw from the global stream, both in the same order
        logits.append(model(images()))
        logits[-1].square().sum().backward()
    assert_equal(*logits)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    ours_by_name = dict(zip(ours.torchvision_state_dict(), ours.state_dict(), strict=True))
    own = dict(ours.named_parameters())
    assert sorted(gradients) == sorted(key for key, mine in ours_by_name.items() if mine in own)
    assert_equal((own[ours_by_name[key]].grad for key in gradients), gradients.values())
    # the running statistics of batch normalisation too
    state = theirs.state_dict()
    assert_equal(ours.torchvision_state_dict().values(), (state[key] for key in ours.torchvision_state_dict()))


def test_weights_of_the_torchvision_model_are_taken_strictly() -> None:
    ours, theirs = backbone("swin_t", seed=None).eval(), original("swin_t").eval()
    ours.load_torchvision_state_dict(theirs.state_dict())
    assert torch.equal(ours(images()), theirs(images()))
    state = theirs.state_dict()
    del state["head.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*classifier\.head\.bias"):
        ours.load_torchvision_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\).*other"):
        ours.load_torchvision_state_dict({**theirs.state_dict(), "other": torch.zeros(1)})


def test_a_model_that_asks_for_the_version_of_its_weights_takes_ours_strictly() -> None:
    """Weights without one are of the MNASNet of old, to torchvision, which had another stem."""
    ours, theirs = backbone("mnasnet0_5").eval(), original("mnasnet0_5").eval()
    state = ours.torchvision_state_dict()
    assert list(state) == list(theirs.state_dict())
    theirs.load_state_dict(state, strict=True)
    assert torch.equal(ours(images()), theirs(images()))


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_b0", "swin_t"])
def test_initialisation_follows_from_the_generator_alone(name: str) -> None:
    torch.manual_seed(1)
    first = backbone(name, seed=None)
    for tensor in first.state_dict().values():
        tensor.fill_(7)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    first.initialise(first, stream(0, "init", "main"))
    assert torch.equal(torch.get_rng_state(), before), "the global stream is as it was"
    branched = build_network(recipe(name), in_channels=3, num_classes=5, seed=0)
    assert_equal(first.state_dict().values(), branched.backbone.state_dict().values())
    torch.manual_seed(3)
    other = backbone(name, seed=1)
    drawn = {key: one for key, one in first.named_parameters() if len(one.unique()) > 1}
    assert len(drawn) > 10
    assert not any(torch.equal(one, drawn[key]) for key, one in other.named_parameters() if key in drawn)


def test_initialisation_is_the_family_s_own_in_every_kind_of_weight() -> None:
    swin, convnext = backbone("swin_t").torchvision_state_dict(), backbone("convnext_tiny").torchvision_state_dict()
    tables = torch.cat([tensor.flatten() for name, tensor in swin.items() if name.endswith("bias_table")])
    assert float(tables.std()) == pytest.approx(0.02, rel=0.05)
    scales = [tensor for name, tensor in convnext.items() if name.endswith("layer_scale")]
    assert len(scales) == 18
    assert {float(value) for scale in scales for value in scale.unique()} == {float(torch.tensor(1e-6))}
    kernel = backbone("resnet18").torchvision_state_dict()["layer4.1.conv2.weight"]
    assert float(kernel.std()) == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)


def test_side_branches_start_and_train_by_their_own_rule() -> None:
    network = build_network(recipe("resnet18"), in_channels=3, num_classes=5, seed=0)
    again = build_network(
        recipe("resnet18", branches=recipe("resnet18").branches[1:]), in_channels=3, num_classes=5, seed=0
    )
    assert_equal(network.sides["side3"].state_dict().values(), again.sides["side3"].state_dict().values())
    kernel = network.sides["side2"].stages[1][0].conv2.weight.detach()
    assert kernel.shape == (256, 256, 3, 3)
    assert float(kernel.std()) == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("name", MADE)
def test_default_branches_are_small_stages_at_the_last_two_inner_nodes(name: str) -> None:
    architecture = ARCHITECTURES.get(f"torchvision/{name}")
    last = len(KNOWN[name][0])
    assert architecture.branches == (
        BranchSpec(after=last - 2, blocks=(1, 1)),
        BranchSpec(after=last - 1, blocks=(1,)),
    )
    assert not architecture.released
    wide = on_meta(recipe(name, branches=(BranchSpec(after=last - 1, blocks=(2,), width=1.5),)))
    (side,) = wide.sides.values()
    assert side.classifier[-1].in_features == round(1.5 * wide.backbone.info[-1].channels)
    assert [block.conv2.stride[0] for block in side.stages[0]] == [wide.backbone.stage_stride(last - 1), 1]


def test_a_branch_may_fork_at_a_block_inside_a_stage() -> None:
    branches = (BranchSpec(after=3, block=2, blocks=(1, 1)), BranchSpec(after=3, blocks=(1,)))
    network = build_network(recipe("mobilenet_v3_small", branches=branches), in_channels=3, num_classes=5, seed=0)
    side = network.sides["side3_2"]
    assert side.stages[0][0].conv2.stride == (1, 1), "the rest of a stage does not reduce the maps again"
    network.eval()
    heads = network(images())
    assert torch.equal(heads.main, backbone("mobilenet_v3_small").eval()(images()))
    assert heads.stacked().shape == (3, 2, 5)


def test_a_bottleneck_is_the_identity_and_what_it_learns() -> None:
    maps = torch.randn(2, 6, 5, 5)
    block = PreactivationBottleneck(6, 6, 1)
    nn.init.zeros_(block.conv3.weight)
    assert torch.equal(block(maps), maps)
    block = PreactivationBottleneck(6, 8, 2).eval()
    nn.init.zeros_(block.conv3.weight)
    assert block.shortcut is not None
    activated = maps.div((1 + 1e-5) ** 0.5).clamp_min(0)[:, :, ::2, ::2]
    expected = torch.einsum("bchw,oc->bohw", activated, block.shortcut.weight[:, :, 0, 0])
    torch.testing.assert_close(block(maps), expected)
    assert count(block) == 2 * (6 + 4 + 4) + 6 * 4 + 4 * 4 * 9 + 4 * 8 + 6 * 8


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "regnet_y_400mf"])
def test_images_of_one_channel_change_the_first_convolution_alone(name: str) -> None:
    grey, colour = backbone(name, in_channels=1), backbone(name).torchvision_state_dict()
    other = [key for key, tensor in grey.torchvision_state_dict().items() if tensor.shape != colour[key].shape]
    assert len(other) == 1
    kernel = grey.torchvision_state_dict()[other[0]]
    assert kernel.shape[1] == 1
    fan_out = kernel.shape[0] * kernel.shape[2] * kernel.shape[3]
    assert float(kernel.std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    assert_equal(grey.state_dict().values(), backbone(name, in_channels=1).state_dict().values())
    assert grey.eval()(images(channels=1)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "smallest"), [("resnet18", 1), ("densenet121", 29), ("convnext_tiny", 32), ("swin_t", 4)]
)
def test_images_that_are_too_small_are_refused_and_no_others(name: str, smallest: int) -> None:
    assert backbone(name).eval()(images(size=smallest)).shape == (2, 5)
    smaller = (smallest - 1, 64)
    if smallest > 1:
        message = rf"^torchvision/{name} takes images from {smallest} by {smallest} pixels on, not {smallest - 1} by 64"
        with pytest.raises(ValueError, match=message + rf".*data\.image_size={smallest}$"):
            measure(recipe(name), channels=3, size=smaller, num_classes=5)


def test_a_model_that_cannot_be_cut_is_refused_with_the_reason() -> None:
    for name, reason in (("vit_b_16", "Wrong image height"), ("maxvit_t", "shape")):
        with pytest.raises(ValueError, match=rf"^torchvision/{name} cannot be cut into stages: .*256 by 256.*{reason}"):
            ARCHITECTURES.get(f"torchvision/{name}")
    with torch.device("meta"):
        flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="it has no blocks that hand on maps of different sizes"):
        find_cuts(flat)


class Crossing(nn.Module):
    """A model of which a later part needs what an earlier one had."""

    def __init__(self) -> None:
        super().__init__()
        self.first = PreactivationBottleneck(3, 4, 2)
        self.second = PreactivationBottleneck(4, 4, 2)

    def forward(self, image: Tensor) -> Tensor:
        first = self.first(image)
        return self.second(first).mean((2, 3)) + first.mean((2, 3))


def test_a_model_whose_stages_are_not_in_a_row_is_refused() -> None:
    with torch.device("meta"):
        model = Crossing()
    with pytest.raises(ValueError, match="more than one tensor goes past second to mean_1"):
        list(split(model, find_cuts(model)))


def test_names_are_found_and_suggested_but_not_listed_with_our_own() -> None:
    assert not any("/" in name for name in ARCHITECTURES.names())
    assert "torchvision/resnet18" in ARCHITECTURES
    assert "torchvision/resnet1" not in ARCHITECTURES
    assert ARCHITECTURES.get("torchvision/resnet18") is ARCHITECTURES.get("torchvision/resnet18")
    with pytest.raises(ValueError, match=r"unknown architecture 'torchvision/resnet1'\. Did you mean 'torchvision/"):
        ARCHITECTURES.get("torchvision/resnet1")
    with pytest.raises(ValueError, match=r"unknown architecture 'resnet33'\. Did you mean 'resnet3") as caught:
        ARCHITECTURES.get("resnet33")
    assert str(caught.value).count("torchvision/") == 1
    assert "torchvision/NAME" in str(caught.value)


def test_looking_a_model_up_draws_nothing_and_makes_no_weights() -> None:
    cuts_of.cache_clear()
    before = torch.get_rng_state()
    stages = len(cuts_of("vgg16").stages)
    on_meta(recipe("resnet18"))
    assert torch.equal(torch.get_rng_state(), before)
    assert stages == 5
    assert {tensor.device.type for tensor in on_meta(recipe("regnet_y_400mf")).state_dict().values()} == {"meta"}
    assert nn.Linear(1, 1).weight.device.type == "cpu", "modules made afterwards have their memory"


def test_dropout_is_torchvision_s_own() -> None:
    with pytest.raises(
        ValueError, match="torchvision/resnet18 keeps the dropout that torchvision gives it: leave dropout"
    ):
        on_meta(recipe("resnet18", dropout=0.1))


def test_cost_and_topology() -> None:
    cost = measure(recipe("resnet18"), channels=3, size=(224, 224), num_classes=1000)
    plain = measure(recipe("resnet18", branches=()), channels=3, size=(224, 224), num_classes=1000)
    assert cost.parameters_main == plain.parameters == 11689512
    assert cost.flops_main == plain.flops == pytest.approx(2 * 1.814e9, rel=1e-3)  # torchvision counts multiply-adds
    assert cost.flops > cost.flops_main
    found = topology(recipe("resnet18"), channels=3, num_classes=10)
    assert [stage["stride"] for stage in found["stages"]] == [4, 8, 16, 32]
    assert [branch["head"] for branch in found["branches"]] == ["side2", "side3"]


def test_a_network_is_copied_and_pickled_whole() -> None:
    ours = backbone("swin_t").eval()
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(ours), torch.load(buffer, weights_only=False)):
        assert torch.equal(other(images()), ours(images()))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_a_run_is_repeatable_and_dhm_at_weight_0_is_dsl(name: str, few_digits: RawData) -> None:
    data = DataSpec(name="digits", train_size=100, pad=1, flip=False)
    optim = OptimSpec(lr=0.01, batch_size=50)

    def run(mimic: MimicSpec | None) -> tuple[dict[str, float], dict[str, Tensor]]:
        torch.manual_seed(torch.seed())
        result = fit(recipe(name, data=data, optim=optim, mimic=mimic, epochs=2), 0, data=few_digits)
        return result.history[-1].metrics, result.network.state_dict()

    metrics, weights = run(MimicSpec(alpha=0.0))
    again, same = run(MimicSpec(alpha=0.0))
    assert metrics == again
    assert_equal(weights.values(), same.values())
    _, deep = run(None)
    assert_equal(weights.values(), deep.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_model_of_torchvision_is_cut_or_refused(name: str) -> None:
    if name in REFUSED:
        with pytest.raises(ValueError, match="cannot be cut into stages"):
            ARCHITECTURES.get(f"torchvision/{name}")
        return
    network = on_meta(recipe(name, branches=ARCHITECTURES.get(f"torchvision/{name}").branches)).train()
    nodes = len(network.backbone.stages)
    everywhere = tuple(BranchSpec(after=node, blocks=(1,) * (nodes - node)) for node in range(1, nodes))
    network = on_meta(recipe(name, branches=everywhere)).train()
    side = 32 * -(-network.backbone.cuts.smallest // 32)
    network(torch.empty(2, 3, side, side, device="meta")).stacked().sum().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    with torch.device("meta"):
        made = ARCHITECTURES.get(f"torchvision/{name}").build(num_classes=1000)
    documented = models.get_model_weights(name).DEFAULT.meta["num_params"]
    auxiliary = name == "inception_v3"  # whose documented number counts the auxiliary head
    assert (count(made) == documented) != auxiliary
