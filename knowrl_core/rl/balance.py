"""Keep a lean to one label out of the batches and out of the advantages."""

from collections.abc import Sequence

import numpy as np

from knowrl_core.rl.experience import Floats


def spread(groups: Sequence[Sequence[int]]) -> list[int]:
    """Merge groups so that each is spread evenly over the result; their own order stays.

    Member i of a group of n stands at ``(i + 1/2) / n`` of the way; among equals the earlier group comes first.
    """
    placed = [
        ((i + 0.5) / len(group), number, member)
        for number, group in enumerate(groups)
        for i, member in enumerate(group)
    ]
    return [member for _, _, member in sorted(placed, key=lambda item: item[:2])]


def balanced(advantages: Floats, labels: Sequence[str | None]) -> Floats:
    """Advantages that give both labels the same total weight and no label a lean of its own.

    Tokens of label c become ``w_c (A - mean_c(A))`` with ``w_c = n / (m n_c)`` for m labels, n tokens and n_c of label
    c. So each label's advantages sum to zero, and the rarer label counts as much as the other. What the labels have in
    common, such as "feasible is always rewarded here", moves nothing. Tokens without a label count as one of their own.

    Args:
        advantages: [N] advantages.
        labels: [N] the label of the task that each token belongs to.
    """
    result = np.zeros_like(advantages)
    names = np.array([label or "" for label in labels])
    kinds = np.unique(names)
    for kind in kinds:
        own = names == kind
        values = advantages[own]
        if values.min() < values.max():  # equal ones give zeros, exactly
            result[own] = (values - values.mean()) * (len(names) / (len(kinds) * int(own.sum())))
    return result
