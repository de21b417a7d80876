"""Where the demo's simulator begins: at the weights of a shipped one that fits the video, or at random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robosim.config import override_text
from robosim.shipped import read_card, shipped_folder, shipped_names

SHIPPED, FROM_SCRATCH = "tiny", "nano"
"""The `model` where none is asked for: the simulator that is taken, and the size that is trained where none can be."""

STEPS = {"tokenizer": 0, "latent_action": 0, "dynamics": 0}
"""Steps that each part is trained on this run's video after it was taken; 0 takes it as it is."""


@dataclass(frozen=True)
class Start:
    """The size of the simulator, the folder whose weights its parts start from (None: random ones), and why."""

    model: str
    init: Path | None
    lines: tuple[str, ...] = ()

    def overrides(self, stage: str, given: Sequence[str]) -> list[str]:
        """What is asked of a stage before the user's `given`, which win. Whoever gives a part's init= trains it; the
        adapter only looks at one."""
        if self.init is None:
            return []
        if stage == "adapt":
            whole = (self.init / "adapter" / "adapter.json").is_file()
            return [override_text("init", str(self.init))] if whole else []
        if stage not in STEPS or any(text.startswith(f"{stage}.init=") for text in given):
            return []
        return [override_text(f"{stage}.init", str(self.init)), f"{stage}.train.steps={STEPS[stage]}"]


def choose_start(model: str | None, from_scratch: bool, video: Mapping[str, Any]) -> Start:
    """The shipped simulator of the size `model` where there is one that fits the video; else random weights.

    `video` is the configuration of the collection.
    """
    scratch = model or FROM_SCRATCH
    if from_scratch:
        return Start(scratch, None)
    name, names = model or SHIPPED, shipped_names()
    if name not in names:
        others = f"shipped are: {', '.join(names)}" if names else "none is shipped with this robosim"
        return Start(scratch, None, (f"no {name} is shipped ({others}): {scratch} is trained from scratch",))
    data = read_card(name)["data"]
    wrong = differing(data, video)
    if wrong:
        return Start(scratch, None, (f"the shipped {name} knows {wrong}: {scratch} is trained from scratch",))
    lines = [f"starts from the shipped {name}; from_scratch=true trains a simulator of your own"]
    known = [task for task, episodes in data["episodes_by_task"].items() if episodes["train"]]
    strange = [str(task) for task in listed(video["tasks"]) if task not in known]
    if strange:
        lines.append(
            f"its weights haven't seen {', '.join(strange)}; dynamics.train.steps=100 trains them on this video too"
        )
    return Start(name, shipped_folder(name), tuple(lines))


def differing(data: Mapping[str, Any], video: Mapping[str, Any]) -> str:
    """What keeps a simulator made from the video of a card from showing this one; empty where nothing does."""
    pairs = {
        "the arm": (data["arm"], Path(str(video["robot"])).name),
        "the camera": (data["cameras"][:1], listed(video["cameras"])[:1]),
        "frames of": (f"{data['size']} px", f"{video['size']} px"),
    }
    return ", ".join(
        f"{what} {''.join(there)}, not {''.join(here)}"
        for what, (there, here) in pairs.items()
        if there != here
    )


def listed(value: Any) -> list[Any]:
    """A list of the configuration; empty where it is none, which is told when its types are checked."""
    return value if isinstance(value, list) else []


def left_behind(steps: Mapping[str, int]) -> list[str]:
    """A line where dynamics are taken as they are on top of a part that is trained: steps of each part."""
    trained = [part for part, count in steps.items() if part != "dynamics" and count]
    if steps["dynamics"] or not trained:
        return []
    return [
        f"{' and '.join(trained)} will be trained, the dynamics still know the earlier one; "
        "dynamics.train.steps=100 trains them too"
    ]
