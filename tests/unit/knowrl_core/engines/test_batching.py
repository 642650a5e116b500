from hypothesis import given, settings
from hypothesis import strategies as st

from knowrl_core.engines.batching import Piece, plan_batches

REQUESTS = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 70)), max_size=30)


@settings(deadline=None)
@given(REQUESTS, st.integers(64, 2000))
def test_every_row_runs_once_and_batches_keep_the_budget(requests, budget):
    lengths = [length for length, _ in requests]
    rows = [count for _, count in requests]
    batches = plan_batches(lengths, rows, budget)
    seen = [[] for _ in requests]
    for batch in batches:
        total = sum(piece.count for piece in batch)
        assert total * max(lengths[piece.request] for piece in batch) <= budget or total == 1
        for piece in batch:
            seen[piece.request] += range(piece.first, piece.first + piece.count)
    assert [sorted(samples) for samples in seen] == [list(range(count)) for count in rows]


@given(REQUESTS, st.integers(64, 2000), st.data())
def test_groups_never_share_a_batch(requests, budget, data):
    lengths, rows = [length for length, _ in requests], [count for _, count in requests]
    places = st.integers(0, 2)
    number = [data.draw(places) for _ in requests]
    groups = [[request for request, of in enumerate(number) if of == group] for group in range(3)]
    batches = plan_batches(lengths, rows, budget, groups)
    assert all(len({number[piece.request] for piece in batch}) == 1 for batch in batches)
    assert sum(piece.count for batch in batches for piece in batch) == sum(rows)


def test_similar_lengths_share_a_batch():
    assert plan_batches([10, 100, 12], [1, 1, 1], 110) == [[Piece(0, 0, 1), Piece(2, 0, 1)], [Piece(1, 0, 1)]]


def test_a_request_is_split_only_when_it_must_be():
    assert plan_batches([50], [4], 200) == [[Piece(0, 0, 4)]]
    assert plan_batches([50], [4], 160) == [[Piece(0, 0, 3)], [Piece(0, 3, 1)]]
