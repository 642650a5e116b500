"""Splits requests into batches of sequences of similar length within a token budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """Some samples of one request that run in one batch."""

    request: int
    """Index of the request."""
    first: int
    """First sample."""
    count: int
    """Number of samples."""


def plan_batches(
    lengths: Sequence[int], rows: Sequence[int], budget: int, groups: Sequence[Sequence[int]] | None = None
) -> list[list[Piece]]:
    """Batches whose rows times longest row stay within the budget.

    A request is split only when its own rows do not fit; a single row longer than the budget runs alone. Batches are
    ordered by their first request, so that early requests are answered early.

    Args:
        lengths: Tokens of one row of each request (prompt and the longest answer).
        rows: Rows of each request (samples, or choices).
        budget: Most tokens in a batch, padding included.
        groups: Requests that may share a batch, each request in one group; None lets all of them.

    Returns:
        The batches; together they hold every row of every request once.
    """
    together = [range(len(lengths))] if groups is None else groups
    batches = [batch for group in together for batch in _fill(group, lengths, rows, budget)]
    return sorted(batches, key=lambda batch: min((piece.request, piece.first) for piece in batch))


def alike(requests: Sequence[int], widths: Mapping[int, int], enough: int) -> list[list[int]]:
    """Part requests by width, so that rows padded to the widest of their part waste little.

    Args:
        requests: What is to be parted.
        widths: Tokens that each of them computes by itself, at least 1.
        enough: A part with fewer tokens takes the next request whatever its width.

    Returns:
        The parts: narrow ones first, and in each no request more than a quarter wider than the narrowest, except to
        make it large enough.
    """
    parts: list[list[int]] = []
    for request in sorted(requests, key=lambda request: (widths[request], request)):
        part = parts[-1] if parts else None
        if part and (len(part) * widths[part[-1]] < enough or 4 * widths[request] <= 5 * widths[part[0]]):
            part.append(request)
        else:
            parts.append([request])
    return parts


def _fill(group: Sequence[int], lengths: Sequence[int], rows: Sequence[int], budget: int) -> list[list[Piece]]:
    pieces = []
    for request in group:
        most = max(1, budget // lengths[request])
        pieces += [Piece(request, first, min(most, rows[request] - first)) for first in range(0, rows[request], most)]
    pieces.sort(key=lambda piece: (lengths[piece.request], piece.request, piece.first))
    batches: list[list[Piece]] = []
    filled = 0
    for piece in pieces:
        # Sorted by length: the newest piece is the longest of its batch.
        if batches and (filled + piece.count) * lengths[piece.request] <= budget:
            batches[-1].append(piece)
            filled += piece.count
        else:
            batches.append([piece])
            filled = piece.count
    return batches
