"""The sizes: every preset builds without memory, and has the parameters and tokens that it promises."""

from __future__ import annotations

import pytest
import torch

from robosim.config import choices
from robosim.errors import ConfigError
from robosim.training.presets import FRAME_SIZE, load_preset

MILLION = 1_000_000


def parameters(name: str) -> dict[str, int]:
    with torch.device("meta"):
        models = load_preset(name).build()
    names = ("tokenizer", "latent_action", "dynamics")
    return {
        part: sum(p.numel() for p in model.parameters()) for part, model in zip(names, models, strict=True)
    }


def test_every_preset_has_a_frame_size():
    assert set(choices("model")) == set(FRAME_SIZE)


def test_nano_has_at_most_a_million_and_a_half_a_model():
    assert max(parameters("nano").values()) <= 1.5 * MILLION


def test_tiny_plays_on_a_cpu_and_fits_into_a_wheel():
    counts = parameters("tiny")
    assert 8 * MILLION <= counts["dynamics"] <= 10 * MILLION
    assert 2 * sum(counts.values()) <= 25 * MILLION, "more than 25 MB in bfloat16"


@pytest.mark.parametrize(("name", "total"), [("small", 50), ("base", 300)])
def test_larger_presets_are_as_large_as_they_say(name, total):
    assert sum(parameters(name).values()) == pytest.approx(total * MILLION, rel=0.1)


def test_genie_has_two_and_a_half_billion_at_play_time():
    """The dynamics and the tokenizer play; the latent action model is counted apart (arXiv 2402.15391, §3.2)."""
    counts = parameters("genie_2b5")
    assert counts["dynamics"] + counts["tokenizer"] == pytest.approx(2.5e9, rel=0.05)
    body = load_preset("genie_2b5").dynamics.model.transformer
    assert (body.layers, body.heads, body.dim) == (34, 20, 2560)


@pytest.mark.parametrize(
    ("name", "tokens"), [("nano", 64), ("tiny", 64), ("small", 64), ("base", 256), ("genie_2b5", 256)]
)
def test_tokens_of_a_frame(name, tokens):
    with torch.device("meta"):
        tokenizer, _, dynamics = load_preset(name).build()
    assert tokenizer.num_tokens == dynamics.num_tokens == tokens


def test_small_presets_encode_each_frame_alone_and_large_ones_see_the_past():
    temporal = {}
    for name in FRAME_SIZE:
        with torch.device("meta"):
            temporal[name] = load_preset(name).build()[0].temporal
    assert temporal == {"nano": False, "tiny": False, "small": False, "base": True, "genie_2b5": True}


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_a_preset_takes_overrides(name):
    assert load_preset(name, ("dynamics.model.draft=false",)).dynamics.model.draft is False


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(ConfigError, match=r"'tini'.*did you mean 'tiny'.*genie_2b5"):
        load_preset("tini")
