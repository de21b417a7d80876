"""A drawn arm, block and marker whose joints, positions and latent actions are known exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from robosim.adapter import AdapterBundle, FitConfig, LabelledEpisodes, fit_adapter
from robosim.spec import EnvSpec, RobotSpec, TaskSpec

BOUND = 1.5
LENGTH = 16
LOWER, UPPER = np.array([0.35, -0.2, 0.04]), np.array([0.62, 0.2, 0.24])

MakeEpisodes = Callable[..., LabelledEpisodes]
"""(count, seed=0) → that many labelled episodes."""


def joints_of(tool: np.ndarray) -> np.ndarray:
    """Seven joints on a curved surface of three dimensions, and a closed gripper: [T,3] → [T,8]."""
    turn = np.random.default_rng(7)
    place = (tool - LOWER) / (UPPER - LOWER) - 0.5
    bend = np.stack([place[:, 0] * place[:, 1], place[:, 2] ** 2, place[:, 1] ** 2], 1)
    joints = place @ turn.normal(size=(3, 7)) * 0.5 + bend @ turn.normal(size=(3, 7)) * 0.15
    return np.concatenate([joints, np.zeros((len(tool), 1))], 1).astype(np.float32)


def latents_of(tool: np.ndarray) -> np.ndarray:
    """Squashed mixtures of the tool's motion that depend on where it is: [T,3] → [T−1,5]."""
    mix = np.random.default_rng(8)
    motion = np.diff(tool, axis=0) / 0.02
    place = ((tool - LOWER) / (UPPER - LOWER) - 0.5)[:-1]
    curve = (motion[:, :, None] * place[:, None]).reshape(-1, 9)
    return (
        np.tanh(motion @ mix.normal(size=(3, 5)) * 0.6 + curve @ mix.normal(size=(9, 5)) * 0.3) * BOUND
    ).astype(np.float32)


def draw(tool: np.ndarray, block: np.ndarray, marker: np.ndarray) -> np.ndarray:
    """uint8 [64,64,3]: the hand's shadow tells its height, and it covers what lies behind."""
    frame = np.full((64, 64, 3), (150, 144, 138), np.uint8)
    frame[:6] = (110, 125, 150)

    def box(point: np.ndarray, half: float, colour: tuple[int, int, int], up: float = 0.0) -> None:
        column, row = 32 + 110 * point[1], 14 + 120 * (point[0] - 0.3) - 70 * point[2] - up
        rows = slice(max(0, round(row - half)), max(0, round(row + half)))
        columns = slice(max(0, round(column - half)), max(0, round(column + half)))
        frame[rows, columns] = colour

    box(marker * (1, 1, 0), 3.5, (20, 70, 250))
    box(tool * (1, 1, 0), 3, (90, 86, 82))
    box(block, 3, (240, 35, 30))
    for up in range(7, 40, 4):
        box(tool, 3 + 4 * tool[2], (235, 235, 238), up)
    box(tool, 3, (30, 31, 36), up=5)
    box(tool, 1.6, (180, 110, 20))
    return frame


def make_one(rng: np.random.Generator, length: int) -> dict[str, np.ndarray]:
    tool = np.zeros((length, 3))
    tool[0], target = rng.uniform(LOWER, UPPER), rng.uniform(LOWER, UPPER)
    for t in range(1, length):
        if t % 5 == 0:
            target = rng.uniform(LOWER, UPPER)
        step = target - tool[t - 1]
        tool[t] = tool[t - 1] + step * min(1.0, 0.025 / max(1e-9, float(np.linalg.norm(step))))
    block = np.append(rng.uniform(LOWER[:2], UPPER[:2]), 0.03) + np.zeros((length, 3))
    block[length // 2 :, :2] += rng.normal(0, 0.02, 2)
    goal = np.append(rng.uniform(LOWER[:2], UPPER[:2]), 0.05) + np.zeros((length, 3))
    joints = joints_of(tool)
    return {
        "frames": np.stack([draw(*row) for row in zip(tool, block, goal, strict=True)]),
        "joints": joints,
        "commands": np.concatenate([joints[1:], joints[-1:]]),
        "points": np.concatenate([tool, block, goal], 1).astype(np.float32),
        "latents": latents_of(tool),
    }


@pytest.fixture(scope="session")
def spec() -> EnvSpec:
    names, units = tuple(f"joint{i}" for i in range(7)), ("rad",) * 7
    robot = RobotSpec(
        "drawn", (*names, "gripper"), (*units, "fraction"), (-2.0,) * 7 + (0.0,), (2.0,) * 7 + (1.0,)
    )
    tasks = (
        TaskSpec("reach", "reach it", 30, 0.06, "tool"),
        TaskSpec("soft_push", "push it", 45, 0.06, "object", (0, 1)),
    )
    return EnvSpec(robot, tasks)


@pytest.fixture(scope="session")
def make_episodes() -> MakeEpisodes:
    def make(count: int, seed: int = 0, length: int = LENGTH) -> LabelledEpisodes:
        rng = np.random.default_rng(seed)
        rows = [make_one(rng, length) for _ in range(count)]
        names = ("frames", "joints", "commands", "points", "latents")
        return LabelledEpisodes(
            *([row[name] for row in rows] for name in names),
            tasks=[("reach", "soft_push")[i % 2] for i in range(count)],
        )

    return make


@pytest.fixture(scope="session")
def labels(make_episodes: MakeEpisodes) -> LabelledEpisodes:
    """195 transitions."""
    return make_episodes(13)


@pytest.fixture(scope="session")
def held_out(make_episodes: MakeEpisodes) -> LabelledEpisodes:
    return make_episodes(10, seed=100)


@pytest.fixture(scope="session")
def blurred() -> Callable[[np.ndarray], np.ndarray]:
    """What a tokenizer does to frames, roughly."""

    def blur(frames: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        x = functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
        return x.round().to(torch.uint8).permute(0, 2, 3, 1).numpy().copy()

    return blur


@pytest.fixture(scope="session")
def bundle(labels, make_episodes, blurred, spec) -> AdapterBundle:
    video = np.concatenate(make_episodes(8, seed=200).frames)
    video = torch.from_numpy(np.concatenate([video, blurred(video)]))
    decoded = [blurred(frames) for frames in labels.frames]
    return fit_adapter(labels, decoded, video, spec, BOUND, FitConfig(colours=16))[0]
