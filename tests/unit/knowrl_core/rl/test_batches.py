from knowrl_core.config.rl import RLConfig
from knowrl_core.rl.batches import mini_batches, rollout_batches
from knowrl_core.rl.experience import Experience


def test_every_task_once_an_epoch_and_tasks_are_never_split(make_rollouts):
    data = Experience.of(make_rollouts(n=11, k=3))
    rl = RLConfig(rollout_batch_size=4, train_batch_size=4, micro_token_budget=64)
    batches = rollout_batches([None] * 11, size=4, seed=5, balance=False)
    assert [len(b) for b in batches] == [4, 4, 3]
    assert sorted(sum(batches, ())) == list(range(11))
    for epoch in (0, 1):
        minis = list(mini_batches(data, batches, rl, epoch=epoch, seed=5))
        # 3 verdicts a task: 4 are reached with 2 tasks
        assert [len(m.tasks) for m in minis] == [2, 2, 2, 2, 2, 1]
        assert [m.batch for m in minis] == [0, 0, 1, 1, 2, 2]
        for mini in minis:
            _, tokens = data.select(mini.tasks)
            assert sorted(c for p in mini.passes for c in p.cell.tolist()) == tokens.tolist()


def test_the_order_depends_on_the_seed_only():
    first, again, other = (rollout_batches([None] * 20, size=8, seed=seed, balance=False) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_later_epochs_mix_a_batch_anew(make_rollouts):
    data = Experience.of(make_rollouts(n=12, k=1))
    rl = RLConfig(train_batch_size=3)
    first, second = ([m.tasks for m in mini_batches(data, [tuple(range(12))], rl, epoch=e, seed=0)] for e in (0, 1))
    assert first == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)]
    assert second != first
