"""Draws the next token of every row from its logits."""

from dataclasses import dataclass

import torch

from knowrl_core.engines.noise import gumbel, uniform

_CANDIDATES = 256
"""Tokens looked at first; they hold nearly all the mass of a trained model."""
_REST = -1
_INSIDE_REST = -2
"""Streams of the noise that belong to no token."""


@dataclass
class Settings:
    """How each row samples; all of shape [rows]."""

    keys: torch.Tensor
    """Noise keys, int64."""
    temperature: torch.Tensor
    """fp64; 0 is greedy."""
    top_p: torch.Tensor
    """fp64."""

    def select(self, rows: torch.Tensor) -> "Settings":
        """The settings of some rows, by index."""
        return Settings(self.keys[rows], self.temperature[rows], self.top_p[rows])


def draw(logits: torch.Tensor, settings: Settings, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The next token of each row, and its log-probability under the raw model.

    Tokens race: the largest log-probability plus Gumbel noise wins, which is a draw from the distribution. The noise
    belongs to the token id. So a slight change of the logits (another batch, other float noise) changes the winner
    about as rarely as two draws can differ; along the cumulative distribution, each change would move all tokens
    behind it.

    Args:
        logits: fp32, shape [rows, vocabulary].
        settings: How the rows sample.
        positions: Index of this token in each response, int64, shape [rows].

    Returns:
        Token ids, int64, and natural log-probabilities at temperature 1 without nucleus, fp32; both of shape [rows].
    """
    tokens = torch.argmax(logits, dim=-1)
    rows = settings.temperature.nonzero().flatten()
    if len(rows):
        whole = len(rows) == len(tokens)
        part = (logits, settings, positions) if whole else (logits[rows], settings.select(rows), positions[rows])
        tokens[rows] = _race(*part, candidates=_CANDIDATES)
    chosen = logits.gather(-1, tokens[:, None]).squeeze(-1)
    return tokens, chosen - torch.logsumexp(logits, dim=-1)


def _race(logits: torch.Tensor, settings: Settings, positions: torch.Tensor, *, candidates: int) -> torch.Tensor:
    """Race among the most probable tokens; the others run as one, in the rare case that they matter."""
    vocabulary = logits.shape[-1]
    candidates = min(candidates, vocabulary)
    heat = settings.temperature[:, None]
    top, ids = torch.topk(logits, candidates, dim=-1)
    scaled = top.double() / heat
    total = torch.logsumexp(logits / heat.float(), dim=-1, keepdim=True).double()
    probabilities = torch.exp(scaled - total)
    covered = probabilities.cumsum(-1)
    nucleus = settings.top_p[:, None]
    # The nucleus is the smallest set that reaches top_p: a token is in when those before it fall short of that.
    scaled = scaled.masked_fill((covered - probabilities >= nucleus) & (nucleus < 1), -torch.inf)
    scores = scaled + gumbel(settings.keys, positions, ids)
    best, place = scores.max(dim=-1)
    tokens = ids.gather(-1, place[:, None]).squeeze(-1)
    if candidates == vocabulary:
        return tokens
    # Rows whose nucleus reaches beyond the candidates start again with every token.
    wide = ((settings.top_p < 1) & (covered[:, -1] < settings.top_p)).nonzero().flatten()
    if len(wide):
        tokens[wide] = _race(logits[wide], settings.select(wide), positions[wide], candidates=vocabulary)
    mass = (1 - covered[:, -1]).clamp_min(1e-300)
    rest = total.squeeze(-1) + mass.log() + gumbel(settings.keys, positions, _stream(ids, _REST)).squeeze(-1)
    lost = ((settings.top_p == 1) & (rest > best)).nonzero().flatten()
    if len(lost):
        tokens[lost] = _among_rest(logits[lost], ids[lost], settings.select(lost), positions[lost])
    return tokens


def _among_rest(logits: torch.Tensor, ids: torch.Tensor, settings: Settings, positions: torch.Tensor) -> torch.Tensor:
    """Draw from the tokens outside the candidates, by the inverse of their cumulative distribution."""
    rest = (logits.double() / settings.temperature[:, None]).scatter(-1, ids, -torch.inf)
    cumulative = torch.softmax(rest, dim=-1).cumsum(-1)
    point = uniform(settings.keys, positions, _stream(ids, _INSIDE_REST)) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, point).squeeze(-1).clamp_max(logits.shape[-1] - 1)


def _stream(ids: torch.Tensor, stream: int) -> torch.Tensor:
    return torch.full_like(ids[:, :1], stream)
