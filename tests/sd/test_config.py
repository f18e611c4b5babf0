"""The configurations: what they refuse, and that JSON keeps them whole."""

import json
import math
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd.config import (
    SHAPES_CONFIG,
    V15,
    V20,
    V21,
    ModelConfig,
    TextConfig,
    UNetConfig,
    VAEConfig,
    from_dict,
    from_json,
    to_dict,
    to_json,
)

KINDS = (TextConfig, VAEConfig, UNetConfig, ModelConfig)
OR_NONE = ("context_width", "num_class_embeds")  # 0: the U-Net takes no prompt, or no labels
WHOLE = [
    (kind, entry.name)
    for kind in KINDS
    for entry in fields(kind)
    if entry.type in (int, "int") and entry.name not in ("skip", "head_width", *OR_NONE)
]
BAD: list[tuple[type, dict[str, Any], str]] = [
    (TextConfig, {"heads": 7}, r"TextConfig.heads: wanted a divisor of 768 \(the width\), got 7"),
    (TextConfig, {"activation": "relu"}, "one of quick_gelu, gelu, got 'relu'"),
    (TextConfig, {"eps": 0.0}, "TextConfig.eps: wanted a finite number above 0"),
    (TextConfig, {"vocab_size": 1}, "TextConfig.vocab_size: .* at least 2, got 1"),
    (TextConfig, {"context_length": 1}, "TextConfig.context_length: .* at least 2, got 1"),
    (VAEConfig, {"channels": ()}, "VAEConfig.channels: wanted a tuple of whole"),
    (VAEConfig, {"channels": [32]}, "VAEConfig.channels: wanted a tuple of whole"),
    (VAEConfig, {"channels": (32, -32)}, "VAEConfig.channels: wanted a tuple of whole"),
    (VAEConfig, {"channels": (32, 48)}, "groups: wanted a divisor of 48 .*, got 32"),
    (VAEConfig, {"scaling_factor": math.nan}, "scaling_factor: wanted a finite number above 0"),
    (VAEConfig, {"scaling_factor": "1"}, "scaling_factor: wanted a finite number above 0"),
    (UNetConfig, {"attention": (True,)}, "one entry for each of 4 channels, got 1"),
    (UNetConfig, {"attention": (1, 1, 1, 0)}, "attention: wanted a tuple of booleans"),
    (UNetConfig, {"head_width": 64}, "heads, head_width: wanted one of them 0, got 8 and 64"),
    (UNetConfig, {"heads": 0, "head_width": -4}, "UNetConfig.head_width: wanted a whole number"),
    (UNetConfig, {"heads": 0, "head_width": 48}, "head_width: wanted a divisor of 320 "),
    (UNetConfig, {"linear_projection": 1}, "linear_projection: wanted a boolean, got 1"),
    (UNetConfig, {"heads": 3}, "heads: wanted a divisor of 320 .*attention., got 3"),
    (ModelConfig, {"prediction": "eps"}, "one of epsilon, v_prediction, sample, got 'eps'"),
    (ModelConfig, {"schedule": "karras"}, "one of scaled_linear, linear, cosine, got 'karras'"),
    (ModelConfig, {"guidance_scale": math.nan}, "finite number of 0 or more, got nan"),
    (ModelConfig, {"solver": "abacus"}, "one of ddpm, .*, dpmpp_2m, .*, got 'abacus'"),
    (ModelConfig, {"guidance_scale": -1.0}, "finite number of 0 or more, got -1.0"),
    (ModelConfig, {"image_size": 500}, "multiple of 8"),
    (ModelConfig, {"text": TextConfig(width=96)}, "context_width: wanted TextConfig.width = 96"),
    (
        ModelConfig,
        {"vae": VAEConfig(latent_channels=8)},
        "in_channels: .*_channels = 8, or 17 to .*, got 4",
    ),
    (ModelConfig, {"unet": UNetConfig(out_channels=8)}, "out_channels: .*_channels = 4, got 8"),
    (ModelConfig, {"text": VAEConfig()}, "ModelConfig.text: wanted a TextConfig, got VAEConfig"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("kind", "change", "message"), BAD)
def test_bad_values_are_refused_by_name(
    kind: type[Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**change)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("kind", "name"), WHOLE)
@pytest.mark.parametrize("value", [0, -1, 1.0, True, "8", None])
def test_counts_are_whole_numbers_of_one_or_more(kind: type[Any], name: str, value: Any) -> None:
    # heads may be 0 where the width of a head is given
    said = "head_width" if (kind, name, value) == (UNetConfig, "heads", 0) else name
    with pytest.raises(ValueError, match=f"{kind.__name__}.{said}: wanted .* at least 1"):
        kind(**{name: value})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", OR_NONE)
@pytest.mark.parametrize("value", [-1, 1.0, True, "8", None])
def test_other_counts_may_be_zero(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"UNetConfig.{name}: wanted .* at least 0"):
        UNetConfig(**{name: value})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("value", [-1, 12, 1.5, "1", None])
def test_the_layers_left_out_are_fewer_than_the_layers(value: Any) -> None:
    with pytest.raises(ValueError, match=r"TextConfig.skip: .* at least 0 and at most 11, got"):
        TextConfig(skip=value)
    assert TextConfig(skip=11).skip == 11


def test_all_counts_are_covered() -> None:
    assert len(WHOLE) == 6 + 4 + 5 + 3


def test_the_presets_are_what_they_are_named_after() -> None:
    assert V15.latent_shape == (4, 64, 64)
    assert V15.vae.factor == 8
    assert (V15.text.start_token, V15.text.end_token) == (49406, 49407)  # CLIP's own ids
    assert V20.latent_shape == (4, 64, 64)
    assert [V20.unet.heads_at(width) for width in V20.unet.channels] == [5, 10, 20, 20]
    assert (V21.latent_shape, V21.prediction) == ((4, 96, 96), "v_prediction")
    assert SHAPES_CONFIG.latent_shape == (4, 8, 8)
    assert SHAPES_CONFIG.vae.factor == 8
    assert SHAPES_CONFIG.image_size == 64


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        V15.unet.heads = 4  # type: ignore[misc]


# Numbers only: the configurations are built in the test, for the suite's type checker draws random
# numbers of its own, which a strategy must not.
texts = st.fixed_dictionaries(
    {
        "layers": st.integers(1, 24),
        "vocab_size": st.integers(2, 10**6),
        "activation": st.sampled_from(["quick_gelu", "gelu"]),
        "eps": st.floats(1e-12, 1.0),
    }
)


@given(
    text=texts,
    heads=st.integers(1, 12),
    head_width=st.integers(1, 64),
    groups=st.integers(1, 32),
    levels=st.lists(st.integers(1, 16), min_size=1, max_size=5),
    factor=st.floats(1e-6, 1e6),
    scale=st.floats(0.0, 100.0),
)
def test_json_keeps_a_configuration_whole(
    text: dict[str, Any],
    heads: int,
    head_width: int,
    groups: int,
    levels: list[int],
    factor: float,
    scale: float,
) -> None:
    words = TextConfig(heads=heads, width=heads * head_width, **text)
    channels = tuple(groups * n for n in levels)
    vae = VAEConfig(groups=groups, channels=channels, scaling_factor=factor)
    unet = UNetConfig(context_width=words.width)
    model = ModelConfig(words, vae, unet, image_size=3 * vae.factor, guidance_scale=scale)
    assert from_json(ModelConfig, to_json(model)) == model
    assert from_dict(TextConfig, to_dict(words)) == words
    assert hash(from_json(VAEConfig, to_json(vae))) == hash(vae)


def test_names_that_are_absent_take_their_defaults() -> None:
    assert from_dict(ModelConfig, {}) == V15
    assert from_dict(ModelConfig, {"text": {"layers": 3}}).text == replace(V15.text, layers=3)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "ModelConfig is not valid JSON"),
        ("[1]", "ModelConfig must come from a JSON object"),
        ('{"vea": {}}', "ModelConfig has no field named vea"),
        ('{"vae": {"chanels": [8]}}', "VAEConfig has no field named chanels"),
        ('{"vae": 3}', "VAEConfig must come from a JSON object, got 3"),
        ('{"vae": {"channels": 8}}', "VAEConfig.channels: wanted a tuple"),
        ('{"guidance_scale": NaN}', "guidance_scale: wanted a finite number"),
    ],
)
def test_bad_json_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(ModelConfig, text)


def test_the_dictionary_holds_json_values_only() -> None:
    values = to_dict(SHAPES_CONFIG)
    assert json.loads(json.dumps(values)) == values
    assert values["vae"]["channels"] == [32, 32, 64, 96]
