"""robomimic's HDF5 files, LIBERO's and MimicGen's among them: `data/demo_k` holds an episode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py

from robosim.errors import DatasetError
from robosim.spec import ActionKind
from robosim_datasets.faults import Fault
from robosim_datasets.sources.hdf5_episodes import (
    H5_ERRORS,
    Hdf5Source,
    Place,
    attributes,
    counting_order,
    dataset_of,
    few_of,
    find_cameras,
    first_readable,
    group_of,
    hdf5_files,
    names_in,
    rate_of,
    reason_of,
    vector_width,
)
from robosim_datasets.sources.opening import one_by_one
from robosim_datasets.sources.source import SourceInfo

STATES = (
    ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),
    ("robot0_joint_pos", "robot0_gripper_qpos"),
    ("ee_pos", "ee_ori", "gripper_states"),
    ("ee_states", "gripper_states"),
    ("joint_states", "gripper_states"),
)
"""Which observations make up the state, the first set that is there; a second arm's are added."""

SPLITS = ("test", "valid", "validation", "val", "train")
"""Filter keys that are splits. A demonstration in several counts to the first: none is trained on by mistake."""

OSC_NAMES = ("x", "y", "z", "ax", "ay", "az", "gripper")
"""Of OSC_POSE's numbers: the tool's motion, its turn as axis times angle, the gripper. Two arms follow each other."""


def open_robomimic(path: Path) -> Hdf5Source:
    """Open one file, or a folder of them. Raises `DatasetError` when no demonstration can be read."""
    path = Path(path)
    places: list[Place] = []
    faults: list[Fault] = []
    tops: dict[str, dict[str, Any]] = {}
    files = hdf5_files(path)
    for file in one_by_one(files):
        try:
            with h5py.File(file, "r") as opened:
                tops[file.name] = attributes(group_of(opened, "data"))
                found = list(_demos(file, opened, tops[file.name]))
        except (DatasetError, *H5_ERRORS) as error:
            faults.append(
                Fault("damaged", file.name, f"none of its demonstrations can be read ({reason_of(error)})")
            )
            continue
        for place in found:
            split_names = [name for name in SPLITS if name in place.metadata["filters"]]
            if len(split_names) > 1:
                what = f"{place.group} is in {' and '.join(split_names)}"
                faults.append(Fault("splits", f"{file.name}, mask", what, episode=len(places)))
            places.append(place)
    if not places and faults:
        raise DatasetError(f"{path}: {faults[0].where}: {faults[0].what}; restore it")
    source = Hdf5Source(path, places)
    source.info = _describe(path, files, source, tops, faults, len(places))
    return source


def looks_like_robomimic(path: Path) -> bool:
    """Whether the first HDF5 file at `path` that opens has `data/demo_k`."""
    try:
        for file in first_readable(path):
            return any(name.startswith("demo") for name in names_in(group_of(file, "data")))
    except (DatasetError, *H5_ERRORS):
        pass
    return False


def _describe(
    path: Path,
    files: list[Path],
    source: Hdf5Source,
    tops: Mapping[str, dict[str, Any]],
    faults: list[Fault],
    episodes: int,
) -> SourceInfo:
    env = [_environment(top) for top in tops.values()]
    said = [kwargs["control_freq"] for kwargs in env if kwargs.get("control_freq")]
    rates = {rate_of(value) for value in said}
    fps = rates.pop() if len(rates) == 1 else None
    robots = {str(robot).lower() for kwargs in env for robot in _listed(kwargs.get("robots"))}
    kinds: set[ActionKind] = {_action_kind(kwargs) for kwargs in env}
    return SourceInfo(
        layout="robomimic (HDF5)",
        name=path.stem,
        cameras=source.camera_sizes(),
        fps=fps,
        state_names=source.good[0].state_names,
        action_names=source.good[0].action_names,
        action_kind=next(iter(kinds)) if len(kinds) == 1 else "other",
        robot="+".join(sorted(robots)) or "unknown",
        episodes=episodes,
        frames=sum(place.length for place in source.good),
        instructions=source.instructions(),
        splits=source.splits(),
        metadata={"files": dict(tops)},
        notes=(*_rate_notes(fps, said), *_notes(source, tops, kinds)),
        faults=tuple(faults),
        bytes=sum(file.stat().st_size for file in files),
    )


def _rate_notes(fps: float | None, said: list[Any]) -> Iterator[str]:
    if fps is None and said:
        yield f"the files' control_freq is {few_of(said)}, which is no single rate: set source_fps="
    elif fps is None:
        yield "the files don't say how many frames a second there are: set source_fps="


def _notes(source: Hdf5Source, tops: Mapping[str, dict[str, Any]], kinds: set[ActionKind]) -> Iterator[str]:
    if "ee_delta" in kinds:
        yield "actions of OSC_POSE are scaled: −1 … 1 is the largest motion in a period"
    # robosuite renders with OpenGL's rows, the lowest first. robomimic's converter turns them (EnvRobosuite), LIBERO's
    # recorder doesn't (its issue 11) and writes the attribute.
    if any(top.get("macros_image_convention") == "opengl" for top in tops.values()):
        yield "pictures are in OpenGL's order of rows, upside down (as LIBERO has them), and are left so"
    yield f"the state is {', '.join(name.removeprefix('obs/') for name in source.good[0].state)}, in this order"
    yield from source.common_notes()


def _demos(path: Path, file: h5py.File, top: Mapping[str, Any]) -> Iterator[Place]:
    """The demonstrations of a file in the order of their numbers."""
    filters = _filters(file)
    problem = top.get("problem_info")
    sentence = problem.get("language_instruction", "") if isinstance(problem, dict) else ""
    osc = _action_kind(_environment(top)) == "ee_delta"
    for name in sorted(names_in(group_of(file, "data")), key=counting_order):
        place = Place(path, f"data/{name}", instruction=str(sentence))
        place.metadata = {"demo": name, "filters": [key for key, names in filters.items() if name in names]}
        place.split = next((key for key in SPLITS if key in place.metadata["filters"]), None)
        try:
            _fill(place, group_of(file, place.group), osc)
        except DatasetError as error:
            place.fault = str(error)
        except H5_ERRORS as error:
            place.fault = f"damaged: {reason_of(error)}"
        yield place


def _fill(place: Place, demo: h5py.Group, osc: bool) -> None:
    place.length = len(dataset_of(demo, "actions"))
    if not place.length:
        raise DatasetError("length: it has no steps")
    there = names_in(demo)
    if "obs" not in there:
        raise DatasetError("schema: it has no observations; robomimic's dataset_states_to_obs.py makes them")
    width = vector_width(demo, "actions")
    place.action = ("actions",)
    place.action_names = _action_names(width, osc)
    place.state = _state(demo)
    for name in place.state:
        count, short = vector_width(demo, name, place.length), name.removeprefix("obs/")
        place.state_names += tuple(f"{short}_{i}" for i in range(count))
    place.cameras = find_cameras(demo, "obs", place.length, "_image|_rgb")
    if "rewards" in there:
        vector_width(demo, "rewards", place.length)
        place.reward = "rewards"
    used = {camera.dataset for camera in place.cameras.values()} | set(place.state)
    place.left_out = tuple(name for name in names_in(group_of(demo, "obs")) if f"obs/{name}" not in used)
    attrs = attributes(demo)
    meta = attrs.get("ep_meta")
    place.metadata["ep_meta"] = meta if isinstance(meta, dict) else {}
    place.instruction = str(place.metadata["ep_meta"].get("lang") or place.instruction)
    declared = attrs.get("num_samples")
    if declared is not None and int(declared) != place.length:
        raise DatasetError(f"length: num_samples says {declared} steps, there are {place.length} actions")


def _action_names(width: int, osc: bool) -> tuple[str, ...]:
    """OSC_POSE's names for each arm, else `action_0` and so on."""
    if osc and width == len(OSC_NAMES):
        return OSC_NAMES
    if osc and width == 2 * len(OSC_NAMES):
        return tuple(f"robot{arm}_{name}" for arm in range(2) for name in OSC_NAMES)
    return tuple(f"action_{i}" for i in range(width))


def _state(demo: h5py.Group) -> tuple[str, ...]:
    """The datasets of the state; none where there is no set that is known."""
    there = set(names_in(group_of(demo, "obs")))
    for names in STATES:
        if there.issuperset(names):
            second = tuple(name.replace("robot0", "robot1") for name in names)
            both = names + second if second != names and there.issuperset(second) else names
            return tuple(f"obs/{name}" for name in both)
    return ()


def _filters(file: h5py.File) -> dict[str, set[str]]:
    """Names of the demonstrations by filter key."""
    if "mask" not in names_in(file):
        return {}
    mask = group_of(file, "mask")
    return {key: {bytes(name).decode() for name in dataset_of(mask, key)[()]} for key in names_in(mask)}


def _environment(top: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that robosuite's environment was made with."""
    args = top.get("env_args")
    kwargs = args.get("env_kwargs") if isinstance(args, dict) else None
    return kwargs if isinstance(kwargs, dict) else {}


def _action_kind(kwargs: Mapping[str, Any]) -> ActionKind:
    """What the controllers make of an action: robosuite names them, and whether they take differences."""
    controllers = list(_controllers(kwargs.get("controller_configs")))
    types = {str(c.get("type")) for c in controllers}
    deltas = [c.get("control_delta", c.get("input_type", "delta") == "delta") for c in controllers]
    if types == {"OSC_POSE"} and all(delta is True for delta in deltas):
        return "ee_delta"
    if types == {"JOINT_POSITION"} and all(delta is False for delta in deltas):
        return "joint_position"
    return "other"


def _controllers(config: Any) -> Iterator[Mapping[str, Any]]:
    """The arms' controllers: one, a list of them, or (robosuite 1.5) parts of a body."""
    for entry in _listed(config):
        if isinstance(entry, dict) and "body_parts" in entry:
            parts = entry["body_parts"]
            arms = parts.get("arms", parts) if isinstance(parts, dict) else {}
            sides = (arms.get(side) for side in ("right", "left")) if isinstance(arms, dict) else ()
            yield from (side for side in sides if isinstance(side, dict))
        elif isinstance(entry, dict):
            yield entry


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
