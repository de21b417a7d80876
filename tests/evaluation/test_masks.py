import numpy as np
import pytest
import torch

from robosim.evaluation.fidelity import shown_by
from robosim.evaluation.masks import colours_by_task, foreground_measures, mask_measures
from robosim.evaluation.measures import summarise
from robosim.evaluation.object_colours import ObjectColours, find_object_colours
from tests.evaluation.by_hand import noise, stretches_of

SIZE = 32
FLOOR, RED, BLUE, WHITE, GREEN = [90, 90, 90], [230, 30, 30], [20, 60, 240], [250, 250, 250], [30, 180, 60]
CODEBOOK = torch.tensor([FLOOR, RED, BLUE, WHITE, GREEN]) / 255
COLOURS = ObjectColours(CODEBOOK, torch.tensor([False, True, False, False, False]))


def floor(*shape: int) -> torch.Tensor:
    return torch.tensor(FLOOR, dtype=torch.uint8).expand(*shape, SIZE, SIZE, 3).clone()


def paint(frame: torch.Tensor, x: float, y: float, side: int, colour: list[int]) -> None:
    left, top = round(x - side / 2), round(y - side / 2)
    frame[max(0, top) : top + side, max(0, left) : left + side] = torch.tensor(colour, dtype=torch.uint8)


def test_a_mask_is_the_objects_colour_without_lone_pixels():
    frames = floor(1)
    paint(frames[0], 10, 10, 6, RED)
    paint(frames[0], 20, 20, 6, BLUE)
    frames[0, 28, 3] = torch.tensor(RED, dtype=torch.uint8)
    mask = COLOURS.mask(frames)[0]
    assert mask.sum() == 36 and mask[7:13, 7:13].all()


def test_overlap_area_and_its_error_are_known():
    """Two stretches: in one the object lies half beside its place, in the other it has doubled."""
    true, shown = floor(3, 2), floor(3, 1)
    for row in range(3):
        paint(true[row, 1], 16, 16, 8, RED)
    paint(shown[0, 0], 20, 16, 8, RED)
    paint(shown[1, 0], 16, 16, 8, RED)
    paint(shown[1, 0], 4, 4, 8, RED)
    stretches = stretches_of(true, task=["a", "a", "b"])
    found = mask_measures({"a": COLOURS}, {"latent": shown_by(shown)}, stretches, (1, 2))
    figures = summarise(found, np.arange(3), 0)
    assert figures["object_iou"]["latent"]["1"]["value"] == pytest.approx((32 + 64) / (96 + 128))
    assert figures["object_area_ratio"]["latent"]["1"]["value"] == pytest.approx(192 / 128)
    assert figures["object_area_error"]["latent"]["1"]["value"] == pytest.approx(64 / 128)
    assert figures["object_iou"]["latent"]["1"]["episodes"] == 2, (
        "nothing is known of the other task's object"
    )
    assert figures["object_iou"]["latent"]["2"] is None


def test_an_arm_that_fades_is_seen_whatever_its_colour():
    """Of two stretches one keeps its arm, elsewhere, and the other has lost half; the table's noise never counts."""
    true, shown = floor(2, 2), floor(2, 1)
    paint(true[0, 1], 8, 8, 8, WHITE)
    paint(true[1, 1], 20, 20, 8, BLUE)
    paint(shown[0, 0], 16, 16, 8, GREEN)
    shown[1, 0, :8, :4] = torch.tensor(RED, dtype=torch.uint8)
    shown[1, 0, 20:] += 25  # less than what counts
    curves, background = {"latent": shown_by(shown)}, floor()[None].float()[0] / 255
    found = foreground_measures(background, curves, stretches_of(true), (1, 2))
    figures = summarise(found, np.arange(2), 0)["foreground_area_ratio"]["latent"]
    assert figures["1"]["value"] == pytest.approx((64 + 32) / 128) and figures["2"] is None


def test_one_that_vanished_does_not_make_up_for_one_that_doubled():
    true, shown = floor(2, 2), floor(2, 1)
    for row in range(2):
        paint(true[row, 1], 16, 16, 8, RED)
    paint(shown[1, 0], 8, 8, 8, RED)
    paint(shown[1, 0], 24, 24, 8, RED)
    found = mask_measures({"reach": COLOURS}, {"latent": shown_by(shown)}, stretches_of(true), (1,))
    figures = summarise(found, np.arange(2), 0)
    assert figures["object_area_ratio"]["latent"]["1"]["value"] == pytest.approx(1)
    assert figures["object_area_error"]["latent"]["1"]["value"] == pytest.approx(1)


def test_padding_never_counts():
    true, shown = floor(2, 3), floor(2, 2)
    paint(true[0, 2], 16, 16, 8, RED)
    paint(shown[0, 1], 16, 16, 8, RED)
    paint(shown[1, 1], 16, 16, 16, RED)
    found = mask_measures({"reach": COLOURS}, {"a": shown_by(shown)}, stretches_of(true, 1, [3, 2]), (2,))
    figures = summarise(found, np.arange(2), 0)
    assert figures["object_iou"]["a"]["2"] | {"low": 0, "high": 0} == {
        "value": 1,
        "low": 0,
        "high": 0,
        "episodes": 1,
    }


def scene(thing: list[int], episodes: int = 10, time: int = 6, seed: int = 0):
    """A camera from above: 1 m is 24 pixels. A white arm with its tool, a thing with a tail that isn't labelled, a blue
    goal; each moves on its own. Returns frames [N,T,…] and positions [N,T,9]."""
    rng = np.random.default_rng(seed)
    frames, positions = floor(episodes, time), np.zeros((episodes, time, 9), np.float32)
    for e in range(episodes):
        goal, start, tool = rng.uniform(-0.4, 0.4, (3, 2))
        for t in range(time):
            tool = np.clip(tool + rng.uniform(-0.15, 0.15, 2), -0.45, 0.45)
            place = start + t * 0.02
            for point, columns in ((tool, slice(0, 2)), (place, slice(3, 5)), (goal, slice(6, 8))):
                positions[e, t, columns] = point + np.array([0.5, 0])
            pixels = [16 + 24 * point for point in (goal, place, tool)]
            paint(frames[e, t], *pixels[0], 5, BLUE)
            paint(frames[e, t], *(pixels[1] + [3, 0]), 3, thing)
            paint(frames[e, t], *pixels[1], 4, thing)
            x, y = pixels[2].round().astype(int)
            frames[e, t, : max(1, y), max(0, x - 2) : x + 2] = torch.tensor(WHITE, dtype=torch.uint8)
    return frames, positions


def test_the_objects_colours_are_those_around_it_and_neither_the_goals_nor_the_arms():
    frames, positions = scene(RED)
    row = np.repeat(np.arange(10), 6)
    found = find_object_colours(frames.flatten(0, 1), positions.reshape(-1, 9).astype(float), row)
    assert found is not None
    painted = torch.stack([(frames.flatten(0, 1) == torch.tensor(c)).all(-1) for c in (RED, BLUE, WHITE)])
    mask = found.mask(frames.flatten(0, 1))
    assert (mask & painted[0]).sum() > 0.97 * painted[0].sum(), "its tail belongs to it"
    assert (mask & ~painted[0]).sum() < 0.02 * painted[0].sum()


def test_an_object_of_the_floors_colour_is_not_found():
    frames, positions = scene(FLOOR)
    row = np.repeat(np.arange(10), 6)
    assert find_object_colours(frames.flatten(0, 1), positions.reshape(-1, 9).astype(float), row) is None


def test_each_task_has_the_colours_of_its_own_object():
    red, at_red = scene(RED)
    green, at_green = scene(GREEN, seed=1)
    task = ["push"] * 10 + ["pull"] * 10
    stretches = stretches_of(torch.cat([red, green]), task=task, positions=np.concatenate([at_red, at_green]))
    found = colours_by_task(stretches, np.ones(20, bool), missing := [])
    assert set(found) == {"push", "pull"} and missing == []
    assert found["push"].mask(red[:, 0]).any() and not found["push"].mask(green[:, 0]).any()
    assert found["pull"].mask(green[:, 0]).any() and not found["pull"].mask(red[:, 0]).any()


def test_what_hides_an_object_is_said_by_task():
    frames, positions = scene(FLOOR, episodes=4)
    unknown = np.full_like(positions, np.nan)
    clear = np.concatenate([positions, unknown, positions])
    task = ["grey"] * 4 + ["imported"] * 4 + ["reach"] * 4
    stretches = stretches_of(torch.cat([frames] * 3), task=task, positions=clear)
    shows = np.array([True] * 8 + [False] * 4)
    assert colours_by_task(stretches, shows, missing := []) == {}
    assert missing == [
        "grey: no object masks: no colour in these frames is the object's alone",
        "imported: no object masks: the data don't say where the object is",
    ]


def test_noise_is_no_object():
    positions = np.random.default_rng(0).uniform(0, 1, (60, 9))
    assert find_object_colours(noise(60, SIZE, SIZE), positions, np.repeat(np.arange(10), 6)) is None
