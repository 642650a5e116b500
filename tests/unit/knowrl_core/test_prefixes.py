from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.prefixes import Family, families

SEQUENCES = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), max_size=14)


@given(SEQUENCES, st.integers(1, 4))
def test_each_sequence_is_in_one_family_and_begins_with_its_root(sequences, shortest):
    found = families(sequences, shortest=shortest)
    members = [place for family in found for place in family.members]
    assert sorted(members) == list(range(len(sequences)))
    assert [sequences[place] for place in members] == sorted(sequences)
    for family in found:
        roots = {tuple(sequences[place][: family.root]) for place in family.members}
        assert len(roots) == 1
        assert all(len(sequences[place]) > family.root for place in family.members)
        assert family.root == 0 if len(family.members) == 1 else family.root >= shortest


@given(SEQUENCES)
def test_more_is_saved_than_by_the_beginning_that_all_share(sequences):
    def saved(root, count):
        return root * (count - 1)

    alike = 0
    while sequences and all(len(s) > alike + 1 and s[alike] == sequences[0][alike] for s in sequences):
        alike += 1
    found = families(sequences, shortest=1)
    assert sum(saved(family.root, len(family.members)) for family in found) >= saved(alike, len(sequences)) // 2


def test_two_label_orders_are_two_families():
    feasible_first, infeasible_first = [7, 1, 2, 3, 4, 5], [7, 2, 1, 3, 4, 5]
    prompts = [[*order, task] for task in (8, 9, 6) for order in (feasible_first, infeasible_first)]
    assert families(prompts, shortest=4) == [Family(6, (4, 0, 2)), Family(6, (5, 1, 3))]
    assert families([[1, 2], [3, 4]], shortest=1) == [Family(0, (0,)), Family(0, (1,))]
    assert families([], shortest=1) == []
