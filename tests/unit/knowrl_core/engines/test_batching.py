from hypothesis import given, settings
from hypothesis import strategies as st

from knowrl_core.engines.batching import Piece, alike, plan_batches

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


@given(st.lists(st.integers(1, 400), max_size=40), st.integers(1, 600))
def test_parts_are_alike_or_small(widths, enough):
    parts = alike(range(len(widths)), dict(enumerate(widths)), enough)
    assert sorted(request for part in parts for request in part) == list(range(len(widths)))
    for part in parts:
        within = [widths[request] for request in part]
        assert within == sorted(within)
        # What makes a part uneven is its last request, taken while there was too little; after it comes no wider one.
        uneven = [place for place, width in enumerate(within) if 4 * width > 5 * within[0]]
        assert all(place * within[place - 1] < enough for place in uneven)


def test_parts_by_hand():
    # 8 rows of 10 are 80 tokens, enough; 13 is more than a quarter wider, 40 far more, and 13 alone is too little.
    widths = dict(enumerate([10] * 8 + [12, 13, 40]))
    assert alike(range(11), widths, 80) == [[*range(9)], [9, 10]]
    assert alike([], {}, 80) == []


def test_similar_lengths_share_a_batch():
    assert plan_batches([10, 100, 12], [1, 1, 1], 110) == [[Piece(0, 0, 1), Piece(2, 0, 1)], [Piece(1, 0, 1)]]


def test_a_request_is_split_only_when_it_must_be():
    assert plan_batches([50], [4], 200) == [[Piece(0, 0, 4)]]
    assert plan_batches([50], [4], 160) == [[Piece(0, 0, 3)], [Piece(0, 3, 1)]]
