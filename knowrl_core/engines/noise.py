"""Sampling noise that depends on what it is for: a counter-based generator in plain tensor arithmetic.

Each number is a hash of (seed, sample, position, token), so nothing has to be drawn in order, only the numbers that are
looked at are computed, and CPU and GPU agree.
"""

import torch

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, the increment of SplitMix64
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def row_keys(seeds: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    """One key per row from the request's seed and the sample's index, int64, shape as given."""
    return _mix(_mix(seeds) + samples * _GOLDEN)


def uniform(keys: torch.Tensor, positions: torch.Tensor, streams: torch.Tensor) -> torch.Tensor:
    """Uniform deviates strictly between 0 and 1.

    Args:
        keys: From :func:`row_keys`, int64, shape [rows].
        positions: Index of the token to be drawn in its response, int64, shape [rows].
        streams: Further counter (token id), int64, shape [rows, m].

    Returns:
        fp64, shape [rows, m].
    """
    counters = _mix(keys + positions * _GOLDEN)[:, None]
    bits = _mix(counters + (streams + 1) * _GOLDEN)
    # 53 bits are what fp64 holds exactly; the half keeps 0 and 1 out.
    return (_shift(bits, 11).double() + 0.5) * 2.0**-53


def gumbel(keys: torch.Tensor, positions: torch.Tensor, streams: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel deviates; arguments and shape as in :func:`uniform`."""
    return -torch.log(-torch.log(uniform(keys, positions, streams)))


def _mix(x: torch.Tensor) -> torch.Tensor:
    """SplitMix64's output function (Steele et al. 2014); int64 arithmetic wraps as unsigned arithmetic does."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift right; the operator on signed integers copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
