from dataclasses import replace

import numpy as np
import pytest

from robosim.errors import DatasetError
from robosim.evaluation.stretches import choose_places, read_stretches
from robosim.spec import EnvSpec
from tests.evaluation.by_hand import noise, stretches_of, telling_store


@pytest.fixture
def store(env_spec):
    """Episodes of 5, 9, 12, 20, 30 and 60 frames."""
    return telling_store(env_spec, [(length, "val") for length in (9, 60, 5, 12, 30, 20)])


def test_each_stretch_is_of_another_episode_from_the_shortest_to_the_longest(store):
    places = choose_places(store, range(6), 3, context=5, horizon=4, long=0, seed=0)
    lengths = [store.episodes[e].length for e, _, _ in places]
    assert len(places) == 3 and lengths[0] == 9 and lengths[-1] == 60, "5 frames leave nothing to predict"
    assert len({e for e, _, _ in choose_places(store, range(6), 99, 5, 4, 0, 0)}) == 5


def test_a_stretch_is_as_long_as_the_horizons_ask_for_and_the_episode_allows(store):
    length = {store.episodes[e].length: n for e, _, n in choose_places(store, range(6), 9, 4, 10, 40, 0)}
    assert length == {5: 5, 9: 9, 12: 12, 20: 14, 30: 14, 60: 44}


def test_where_a_stretch_begins_is_the_seeds(store):
    drawn = [choose_places(store, range(6), 9, 4, 4, 0, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for episode, first, frames in drawn[0]:
        assert first >= 0 and first + frames <= store.episodes[episode].length


def test_rows_are_aligned_and_short_stretches_padded_by_their_last_frame(store):
    stretches = read_stretches(store, [(1, 7, 8), (3, 0, 5)], context=3)
    start = [store.episodes[1].start + 7, store.episodes[3].start]
    for row, (first, length) in enumerate(zip(start, (8, 5), strict=True)):
        expected = first + np.minimum(np.arange(8), length - 1)
        assert stretches.frames[row, :, 0, 0, 0].tolist() == expected.tolist()
        assert stretches.state[row, :, 0].tolist() == expected.tolist()
        assert stretches.command[row, :, 0].tolist() == (1000 + expected).tolist()
        assert stretches.positions[row, :, 8].tolist() == expected.tolist()
    assert stretches.before[0, 0] == 1000 + start[0] - 1 and np.isnan(stretches.before[1]).all()
    assert stretches.present[:, 0, 0, 0].tolist() == [start[0] + 2, start[1] + 2]
    assert stretches.at(4)[0, 0, 0, 0] == start[0] + 2 + 4
    assert stretches.reaches(2).tolist() == [True, True] and stretches.reaches(3).tolist() == [True, False]
    assert stretches.future == 5


def test_labels_that_the_data_lack_are_nan_or_nothing(store, env_spec: EnvSpec):
    store.spec = replace(env_spec, labels=())
    stretches = read_stretches(store, [(1, 7, 8)], context=3)
    assert stretches.command.shape == (1, 8, 0) and stretches.state.shape == (1, 8, 0)
    assert np.isnan(stretches.positions).all()


def test_nothing_to_evaluate_says_what_to_set(store):
    with pytest.raises(DatasetError, match=r"more than context=60 frames.*set a smaller\s+context="):
        read_stretches(store, choose_places(store, range(6), 9, 60, 4, 0, 0), context=60)


def test_a_task_that_labels_its_goal_as_its_object_has_none(env_spec: EnvSpec):
    positions = np.zeros((3, 4, 9), np.float32)
    positions[1, :, 3] = 0.1
    positions[2] = np.nan
    stretches = stretches_of(noise(3, 4, 8, 8), positions=positions)
    assert stretches.has_object(env_spec).tolist() == [False, True, False]
    pushed = replace(env_spec, tasks=(replace(env_spec.tasks[0], subject="object"),))
    assert stretches.has_object(pushed).tolist() == [False, True, True], "unknown: the task says it"
