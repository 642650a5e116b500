"""Splits requests into batches of sequences of similar length within a token budget."""

from collections.abc import Sequence
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


def plan_batches(lengths: Sequence[int], rows: Sequence[int], budget: int) -> list[list[Piece]]:
    """Batches whose rows times longest row stay within the budget.

    A request is split only when its own rows do not fit; a single row longer than the budget runs alone. Batches are
    ordered by their first request, so that early requests are answered early.

    Args:
        lengths: Tokens of one row of each request (prompt and the longest answer).
        rows: Rows of each request (samples, or choices).
        budget: Most tokens in a batch, padding included.

    Returns:
        The batches; together they hold every row of every request once.
    """
    pieces = []
    for request, (length, count) in enumerate(zip(lengths, rows, strict=True)):
        most = max(1, budget // length)
        pieces += [Piece(request, first, min(most, count - first)) for first in range(0, count, most)]
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
    return sorted(batches, key=lambda batch: min((piece.request, piece.first) for piece in batch))
