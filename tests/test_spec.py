"""The contract that every dataset carries: what it refuses."""

from __future__ import annotations

import copy
import json

import pytest

from robosim.errors import DatasetError
from robosim.spec import EnvSpec, RobotSpec, TaskSpec

ROBOT = RobotSpec("dot", ("joint",), ("rad",), (-1.0,), (1.0,))
SPEC = EnvSpec(
    ROBOT, (TaskSpec("reach", "go [there]/now", 9, 0.1, "tool"),), ("front", "cam_2.left-top", "œil")
)

ELSEWHERE = ["a/../../../evil", "/etc/evil", "..", ".", "", "a b", "a\\b", "a\n", "a\0", "~", "a:b", 7, None]


def test_a_spec_comes_back_as_it_was():
    assert EnvSpec.from_json(json.loads(json.dumps(SPEC.to_json()))) == SPEC


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("what", ["camera", "task"])
def test_names_that_lead_files_elsewhere_are_refused(what, name):
    document = copy.deepcopy(SPEC.to_json())
    if what == "camera":
        document["cameras"] = ["front", name]
    else:
        document["tasks"][0]["name"] = name
    with pytest.raises(DatasetError):
        EnvSpec.from_json(document)


def test_a_sentence_names_the_camera():
    with pytest.raises(DatasetError, match=r"camera name '\.\./evil' can't be a file's name.*rename"):
        EnvSpec(ROBOT, SPEC.tasks, ("../evil",))


@pytest.mark.parametrize("damage", [{"robot": None}, {"tasks": 3}, {"colour": "red"}, {"cameras": None}])
def test_a_damaged_spec_is_one_sentence(damage):
    with pytest.raises(DatasetError, match="env spec is damaged"):
        EnvSpec.from_json(SPEC.to_json() | damage)
