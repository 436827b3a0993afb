import random
import string
import subprocess
import sys

import pytest

from analysis.plan import Plan, folder
from analysis.plan_record import decode_plan, encode_plan, plan_ids
from analysis.schema import PLAN_TAG, PLAN_TAG_SIZE
from tests.analysis import synthetic


def long_plan(variants: int) -> dict[str, object]:
    draw = random.Random(0)
    names = ["".join(draw.choices(string.ascii_letters + "α²", k=60)) for _ in range(variants)]
    return {"plan_id": "abc.1", "variants": names, "factors": {"b": [None, 0.5], "a": [1]}}


@pytest.mark.parametrize("variants", [0, 1, 100, 1000])
def test_decoding_gives_back_what_was_encoded(variants: int) -> None:
    plan = long_plan(variants)
    tags = encode_plan(plan)
    assert decode_plan(tags, "abc.1") == plan
    assert list(decode_plan(tags, "abc.1")["factors"]) == ["b", "a"]
    assert all(len(text) <= PLAN_TAG_SIZE for text in tags.values())
    assert plan_ids({**tags, "mlflow.note.content": ""}) == ["abc.1"]


def test_a_long_plan_takes_several_tags_and_leaves_no_trace_in_a_shorter_one() -> None:
    long, short = encode_plan(long_plan(1000)), encode_plan(long_plan(1))
    assert len(long) > 2 > len(short) == 1
    assert decode_plan({**long, **short}, "abc.1") == long_plan(1)


def test_a_missing_tag_is_told() -> None:
    tags = encode_plan(long_plan(1000))
    del tags[f"{PLAN_TAG}.abc.1.1"]
    with pytest.raises(ValueError, match=r"plan\.abc\.1\.1"):
        decode_plan(tags, "abc.1")
    with pytest.raises(ValueError, match="incomplete"):
        decode_plan({}, "abc.1")


def test_parts_of_two_writes_do_not_pass_for_a_plan() -> None:
    tags = encode_plan(long_plan(1000))
    other = encode_plan({"changed": list(range(500)), **long_plan(1000)})
    with pytest.raises(ValueError, match="damaged"):
        decode_plan(
            {**tags, f"{PLAN_TAG}.abc.1.0": f"{len(tags)}:" + other[f"{PLAN_TAG}.abc.1.0"].partition(":")[2]}, "abc.1"
        )


def test_importing_the_schema_loads_nothing_heavy() -> None:
    code = (
        "import sys, analysis.schema, analysis.plan_record, analysis.plan\n"
        "print([m for m in ('pandas', 'mlflow', 'matplotlib', 'numpy', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def plan(**changes: object) -> Plan:
    record = {**synthetic.plan_record("methods", plan_id="p1"), **changes}
    return Plan.from_record(record, experiment="digits/methods", experiment_id="1")


def test_a_plan_of_another_version_or_without_its_baseline_is_refused() -> None:
    record = synthetic.plan_record("methods", plan_id="p1")
    del record["factors"]
    with pytest.raises(ValueError, match="'factors'"):
        Plan.from_record(record, experiment="digits/methods", experiment_id="1")
    with pytest.raises(ValueError, match="'gone'"):
        plan(baseline="gone")


def test_each_arm_is_compared_with_the_baseline_of_its_backbone() -> None:
    record = synthetic.plan_record("depths", plan_id="p1")
    made = Plan.from_record(record, experiment="digits/depths", experiment_id="1")
    assert made.baseline_of("dhm resnet14 depth 2") == "plain resnet14"
    assert made.baseline_of("dhm resnet8 depth 2") == "plain resnet8"
    # What the plan says itself counts more.
    record["variants"][3]["baseline"] = "plain resnet14"
    told = Plan.from_record(record, experiment="digits/depths", experiment_id="1")
    assert told.baseline_of(record["variants"][3]["name"]) == "plain resnet14"


def test_the_command_that_completes_a_plan_can_be_typed() -> None:
    told = plan(seeds=[0, 1], overrides=["factors.arch=[resnet8]"]).command
    assert told == "python -m experiments.run grid=methods benchmark=digits 'factors.arch=[resnet8]' seeds=2"
    assert plan(seeds=[0, 4]).command.endswith("'seeds=[0,4]'")


def test_plans_of_one_grid_have_folders_of_their_own() -> None:
    old, new = plan(plan_id="old", updated=1.0), plan(plan_id="new", updated=2.0)
    changed = plan(plan_id="more", overrides=["optim.epochs=2"], updated=3.0)
    found = {p.plan_id: folder(p, [old, new, changed]) for p in (old, new, changed)}
    assert found == {"old": "digits/methods-old", "new": "digits/methods", "more": "digits/methods-more"}
    assert folder(plan(benchmark="../x"), []) == "-x/methods"
