"""The CLIP text transformer: tokens to the context of the U-Net's cross-attention."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sd.config import TextConfig

__all__ = ["TextEncoder"]


def _activate(x: Tensor, kind: str) -> Tensor:
    """GELU, or CLIP's quick form x * sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x) if kind == "quick_gelu" else F.gelu(x)


class _Embeddings(nn.Module):
    """Token embedding plus learned position embedding."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.context_length, config.width)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        place = self.position_embedding.weight[: tokens.shape[1]]
        states: Tensor = self.token_embedding(tokens) + place
        return states


class _CausalAttention(nn.Module):
    """Multi-head attention in which a token attends to itself and to earlier tokens."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.q_proj = nn.Linear(config.width, config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(
        self, x: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch length width"]:
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        states: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return states


class _MLP(nn.Module):
    """W2 act(W1 x), token by token."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.fc1 = nn.Linear(config.width, config.intermediate)
        self.fc2 = nn.Linear(config.intermediate, config.width)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        states: Tensor = self.fc2(_activate(self.fc1(x), self.activation))
        return states


class _Layer(nn.Module):
    """Attention, then the MLP; pre-norm, each with a residual."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = _CausalAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = _MLP(config)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=config.eps)

    def forward(
        self, x: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch length width"]:
        x = x + self.self_attn(self.layer_norm1(x))
        states: Tensor = x + self.mlp(self.layer_norm2(x))
        return states


class TextEncoder(nn.Module):
    """A causal pre-norm transformer over tokens, the text half of CLIP.

    h_0 = E[token] + P[place]; h_l = h' + MLP(LN(h')), h' = h_{l-1} + Attention(LN(h_{l-1}));
    the summary is LN(h_L), the U-Net's condition LN(h_{L - skip}). Parameters have the names and
    shapes of transformers' `CLIPTextModel`: `load_state_dict(strict=True)` works both ways.
    Source: Radford et al. 2021, arXiv:2103.00020, section 2.4.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        layers = nn.ModuleList([_Layer(config) for _ in range(config.layers)])
        self.encoder = nn.ModuleDict({"layers": layers})
        self.final_layer_norm = nn.LayerNorm(config.width, eps=config.eps)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        """The condition of the U-Net: one state a token (ids below `vocab_size`).

        Raises ValueError if there are more tokens than `context_length`.
        """
        return self.states(tokens, self.config.layers - self.config.skip)

    def states(
        self, tokens: Int[Tensor, "batch length"], layers: int
    ) -> Float[Tensor, "batch length width"]:
        """The normalised states after the first `layers` layers."""
        length, limit = tokens.shape[1], self.config.context_length
        if length > limit:
            raise ValueError(f"tokens: wanted at most context_length = {limit}, got {length}")
        x = self.embeddings(tokens)
        for layer in list(self.encoder["layers"].children())[:layers]:
            x = layer(x)
        states: Tensor = self.final_layer_norm(x)
        return states

    def pooled(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch width"]:
        """The last layer's state at each prompt's first end token: the summary CLIP compares.

        Raises ValueError if a prompt holds no end token.
        """
        ends = tokens == self.config.end_token
        if not bool(ends.any(dim=1).all()):
            raise ValueError(f"tokens must hold the end token {self.config.end_token} in each row")
        rows = torch.arange(len(tokens), device=tokens.device)
        states = self.states(tokens, self.config.layers)
        return states[rows, ends.int().argmax(dim=1)]

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights as CLIP did, narrower where residual branches add up, but embeddings.

        Those are 25 times as wide as CLIP's (0.02 and 0.01): in a short training at a high rate
        the steps that all words share would outgrow a narrow start, and words become one.
        """
        width, layers = self.config.width, self.config.layers
        inner = width**-0.5 * (2 * layers) ** -0.5
        scales = {
            "token_embedding.weight": 0.5,
            "position_embedding.weight": 0.25,
            "q_proj.weight": width**-0.5,
            "k_proj.weight": width**-0.5,
            "v_proj.weight": width**-0.5,
            "out_proj.weight": inner,
            "fc1.weight": (2 * width) ** -0.5,
            "fc2.weight": inner,
        }
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                scale = scales.get(".".join(name.split(".")[-2:]))
                if scale is not None:
                    parameter.normal_(0.0, scale, generator=generator)
                elif name.endswith("bias"):
                    parameter.zero_()
