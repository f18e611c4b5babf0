"""Previews: captions are encoded as in the training, prompts as `generate` reads them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sd.command_line.flags import FlagError
from sd.config import SHAPES_CONFIG, TextConfig, VAEConfig
from sd.networks.text_encoder import TextEncoder
from sd.networks.vae import VAE
from sd.text.clip_vocabulary import rules_of_merges
from sd.text.tokenizer import Tokenizer
from sd.train.own_options import Networks
from sd.train.preview import SEEDS, Prompts, of_captions, of_flag, previews

TOKENIZER = Tokenizer(rules_of_merges([]), 12)


class Seen(nn.Module):
    """Stands for a U-Net, and keeps the contexts of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.contexts: list[Tensor] = []

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        self.contexts.append(context)
        return 0 * x


def shown(prompts: Prompts, folder: Path) -> tuple[Tensor, TextEncoder]:
    """The context of the conditional prediction, and the text encoder."""
    text = TextConfig(vocab_size=TOKENIZER.vocab_size, width=16, layers=2, heads=2,
                      context_length=12, intermediate=32)  # fmt: skip
    own = VAEConfig(channels=(8,), layers_per_block=1, groups=4)
    config = Networks(unet_channels=(8,), heads=2).model(8, text, own)
    encoder, network = TextEncoder(text).eval(), Seen()
    previews(folder, config, TOKENIZER, encoder, VAE(own).eval(), prompts)(network, 7)
    assert (folder / "preview-000007.png").exists()
    return network.contexts[0][len(SEEDS) :], encoder


@pytest.mark.parametrize(
    "caption",
    [
        "a cat",
        "a (b) [c:2]",
        "two BREAK",
        "abc " * 9,
        "abcdefgh ijklmnop",
        "a {b} AND",
        r"\(x\) (y",
    ],
)
@torch.no_grad()
def test_a_caption_is_shown_as_it_is_learned(caption: str, tmp_path: Path) -> None:
    """Marks are text, and a long caption ends with the same token; nothing is warned of again."""
    found, encoder = shown(of_captions([caption]), tmp_path)
    wanted = encoder(TOKENIZER.encode([caption], truncate=True))
    torch.testing.assert_close(found, wanted.expand_as(found))


@torch.no_grad()
def test_a_prompt_of_the_flag_has_its_weights(tmp_path: Path) -> None:
    found, encoder = shown(of_flag(["a (b:2)"], TOKENIZER, SHAPES_CONFIG), tmp_path)
    plain, nothing = encoder(TOKENIZER.encode(["a b", ""]))
    assert torch.allclose(found[0, 1], plain[1], atol=1e-5)
    assert torch.allclose(found[0, 2], nothing[2] + 2 * (plain[2] - nothing[2]), atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("()", "--prompts: wanted at least one word"),
        ("abcdefghijk", "--prompts: the prompt 'abcdefghijk' has 11 tokens; this model reads at"),
        ("a BREAK b", "--prompts: the prompt 'a BREAK b' has a BREAK"),
        ("(a:" + "9" * 400 + ")", "--prompts: wanted a finite weight"),
    ],
)
def test_a_prompt_that_generate_refuses_is_refused(prompt: str, words: str) -> None:
    with pytest.raises(FlagError, match=f"^{words}"):
        of_flag(["a", prompt], TOKENIZER, SHAPES_CONFIG)
