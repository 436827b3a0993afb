"""How a plan is kept in the tags of its experiment. Standard library only, for the training process."""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from analysis.schema import PLAN_TAG, PLAN_TAG_SIZE

_TAG = re.compile(rf"^{re.escape(PLAN_TAG)}\.(?P<plan_id>.+)\.(?P<index>\d+)$")


def encode_plan(plan: Mapping[str, Any]) -> dict[str, str]:
    """Return the experiment tags that hold `plan`, which is a JSON value with a `plan_id`.

    The first tag opens with the number of tags, so that the rest of an earlier and longer plan is not read.
    """
    plan_id = plan["plan_id"]
    text = json.dumps(plan, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    payload = base64.b64encode(zlib.compress(text.encode(), level=9)).decode()
    room = PLAN_TAG_SIZE - len("9999:")
    chunks = [payload[start : start + room] for start in range(0, len(payload), room)]
    chunks[0] = f"{len(chunks)}:{chunks[0]}"
    return {f"{PLAN_TAG}.{plan_id}.{index}": chunk for index, chunk in enumerate(chunks)}


def decode_plan(tags: Mapping[str, str], plan_id: str) -> dict[str, Any]:
    """Return the plan that `encode_plan` wrote. ValueError where a part is missing or of another write."""
    try:
        count, _, first = tags[f"{PLAN_TAG}.{plan_id}.0"].partition(":")
        rest = [tags[f"{PLAN_TAG}.{plan_id}.{index}"] for index in range(1, int(count))]
    except KeyError as missing:
        raise ValueError(f"the record of plan {plan_id!r} is incomplete: tag {missing} is missing. {_REMEDY}") from None
    except ValueError:
        raise ValueError(f"the record of plan {plan_id!r} does not say how many tags it has. {_REMEDY}") from None
    try:
        # zlib ends in a checksum: parts of two different writes do not pass for a plan.
        text = zlib.decompress(base64.b64decode("".join([first, *rest]), validate=True))
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"the record of plan {plan_id!r} is damaged ({error}). {_REMEDY}") from None
    plan: dict[str, Any] = json.loads(text)
    return plan


def plan_ids(tags: Iterable[str]) -> list[str]:
    """Return the ids of the plans that these experiment tags hold, sorted."""
    return sorted({match["plan_id"] for match in map(_TAG.match, tags) if match})


_REMEDY = "Run its grid again: that writes the plan anew and repeats no finished cell."
