"""A process of a torchrun that is done leaves with success, unless an error came after."""

import sys

from robosim.training import distributed


def test_success_is_said_only_where_no_error_came_after(monkeypatch):
    left: list[int] = []
    monkeypatch.setattr(distributed, "leave", left.append)
    for name in ("last_exc", "last_value"):
        monkeypatch.delattr(sys, name, raising=False)
    distributed.leave_if_well()
    assert left == [0]
    monkeypatch.setattr(sys, "last_exc", ValueError("later"), raising=False)
    distributed.leave_if_well()
    assert left == [0], "the interpreter's own code stands"
