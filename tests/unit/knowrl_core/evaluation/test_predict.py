import pytest

from knowrl_core.errors import StageError
from knowrl_core.evaluation import EvalTask, predict
from knowrl_core.storage.schemas import VerdictRecord

Y, N, U = "feasible", "infeasible", "unparseable"


def verdicts(task_id, said, p=(None,), views=("v",)):
    return [
        VerdictRecord(
            task_id=task_id, sample=j, view=views[j % len(views)], verdict=verdict, text=verdict, token_ids=[1],
            logprobs=[-1.0], prompt_token_ids=[1], p_infeasible=p[j % len(views)], label_mass=None,
            prompt_sha256="h", engine="e", policy="p", seed=0,
        )
        for j, verdict in enumerate(said)
    ]  # fmt: skip


def one(said, **options):
    return predict("set", [EvalTask("a", "Sing.", Y)], verdicts("a", said, **options), k=len(said))[0]


@pytest.mark.parametrize(
    ("p", "predicted"), [((0.4,), Y), ((0.6,), N), ((0.5,), U), ((0.9, 0.2), N), ((0.75, 0.25), U)]
)
def test_exact_mode_uses_the_mean_over_views_and_not_the_votes(p, predicted):
    record = one([Y, Y, Y, Y, Y], p=p, views=("v", "w")[: len(p)])
    assert record.predicted == predicted
    assert record.score == pytest.approx(sum(p) / len(p))
    assert (record.votes_feasible, record.label, record.dataset, record.task) == (5, Y, "set", "Sing.")


@pytest.mark.parametrize(
    ("said", "predicted", "score"),
    [([Y, Y, N], Y, 1 / 3), ([N, N, U], N, 1.0), ([Y, N, U], U, 0.5), ([U, U], U, None)],
)
def test_free_mode_uses_the_votes(said, predicted, score):
    record = one(said)
    assert (record.predicted, record.score) == (predicted, score)
    assert record.votes_unparseable == said.count(U)


def test_empty_and_wrong_sets():
    assert predict("set", [], [], k=8) == []
    with pytest.raises(StageError, match="task 'a': got 0 verdicts"):
        predict("set", [EvalTask("a", "Sing.", Y)], [], k=8)
