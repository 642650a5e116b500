"""In which order tasks are trained on, and which of them share a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from knowrl_core.config.rl import RLConfig
from knowrl_core.rl.balance import spread
from knowrl_core.rl.experience import Experience
from knowrl_core.rl.packing import pack
from knowrl_core.rl.tree import PackedPass
from knowrl_core.rng import stream


@dataclass(frozen=True, slots=True)
class MiniBatch:
    """One optimizer step: whole tasks, and the passes that they are computed in."""

    epoch: int
    """Pass over the rollouts, from 0."""
    batch: int
    """Rollout batch that it belongs to, from 0."""
    tasks: tuple[int, ...]
    """Indices of its tasks."""
    passes: tuple[PackedPass, ...]
    """Its forward and backward passes."""

    @property
    def tokens(self) -> int:
        """Response tokens trained on."""
        return sum(len(packed.target) for packed in self.passes)


def rollout_batches(labels: Sequence[str | None], *, size: int, seed: int, balance: bool) -> list[tuple[int, ...]]:
    """Shuffled task indices in batches of ``size`` (the last may be smaller): what is whitened together.

    Args:
        labels: Label of each task.
        size: Tasks a batch.
        seed: Stream of the order.
        balance: Spread each label evenly over the batches.
    """
    order = [int(i) for i in stream(seed, "order").permutation(len(labels))]
    if balance:
        order = spread([[i for i in order if labels[i] == kind] for kind in sorted(set(labels), key=str)])
    return [tuple(order[i : i + size]) for i in range(0, len(order), size)]


@dataclass(frozen=True, slots=True)
class StepTasks:
    """The tasks of one optimizer step, not packed yet."""

    epoch: int
    """Pass over the rollouts, from 0."""
    batch: int
    """Rollout batch that they belong to, from 0."""
    tasks: tuple[int, ...]
    """Their indices."""


def plan_steps(
    data: Experience, batches: Sequence[tuple[int, ...]], rl: RLConfig, *, epoch: int, seed: int
) -> Iterator[StepTasks]:
    """The optimizer steps of one epoch.

    Rollout batches keep their order and members. Epoch 0 takes their tasks as they come; later ones in a new order
    each, so that a task meets others. A step takes tasks until it has ``train_batch_size`` verdicts.
    """
    for number, members in enumerate(batches):
        tasks = members
        if epoch > 0:
            tasks = tuple(members[i] for i in stream(seed, "epoch", epoch, number).permutation(len(members)))
        chosen: list[int] = []
        verdicts = 0
        for i, task in enumerate(tasks):
            chosen.append(task)
            verdicts += data.rollouts[task].n_verdicts
            if verdicts >= rl.train_batch_size or i == len(tasks) - 1:
                yield StepTasks(epoch, number, tuple(chosen))
                chosen, verdicts = [], 0


def pack_step(step: StepTasks, data: Experience, rl: RLConfig) -> MiniBatch:
    """Pack a step's tasks; the same tasks always give the same passes."""
    units = [unit for task in step.tasks for unit in data.units[task]]
    return MiniBatch(step.epoch, step.batch, step.tasks, tuple(pack(units, rl.micro_token_budget)))


def mini_batches(
    data: Experience, batches: Sequence[tuple[int, ...]], rl: RLConfig, *, epoch: int, seed: int
) -> Iterator[MiniBatch]:
    """The steps of one epoch, packed."""
    for step in plan_steps(data, batches, rl, epoch=epoch, seed=seed):
        yield pack_step(step, data, rl)
