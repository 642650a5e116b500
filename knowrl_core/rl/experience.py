"""All that is known of the rollouts' response tokens before the first optimizer step, in flat arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from knowrl_core.rl.packing import PromptUnit
from knowrl_core.rl.rollout import PromptGroup, Rollout, Verdict

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(slots=True)
class Experience:
    """``V`` verdicts of all tasks one after the other, ``N`` response tokens of all verdicts one after the other.

    Log-probabilities are natural and per token. They are kept in float64, so that sums over them do not depend on
    their order within float32's precision.
    """

    rollouts: tuple[Rollout, ...]
    """The tasks."""
    verdicts: tuple[Verdict, ...]
    """[V]"""
    task: Ints
    """[V] index of the verdict's task in ``rollouts``."""
    starts: Ints
    """[V + 1] verdict v owns the tokens ``starts[v]`` to ``starts[v + 1] - 1``."""
    units: tuple[tuple[PromptUnit, ...], ...]
    """For each task, its prompts with their responses."""
    rewards: Floats
    """[V] reward of each verdict, before the KL penalty."""
    engine: Floats
    """[N] by the engine, when the tokens were sampled."""
    policy: Floats = field(default_factory=lambda: np.empty(0))
    """[N] by the policy, recomputed before the first step."""
    old: Floats = field(default_factory=lambda: np.empty(0))
    """[N] what ratios are taken to: ``policy`` or ``engine``."""
    importance: Floats | None = None
    """[N] truncated importance weights of the engine's samples; None for 1."""
    reference: Floats | None = None
    """[N] by the reference, if there is one."""
    advantages: Floats = field(default_factory=lambda: np.empty(0))
    """[N] filled by the algorithm."""

    @property
    def n_tokens(self) -> int:
        """N."""
        return int(self.starts[-1])

    @property
    def lengths(self) -> Ints:
        """[V] response tokens of each verdict."""
        return np.diff(self.starts)

    @property
    def token_labels(self) -> list[str | None]:
        """[N] the label of the task that each token belongs to."""
        labels = [self.rollouts[task].label for task in self.task]
        return [label for label, length in zip(labels, self.lengths, strict=True) for _ in range(length)]

    def weights(self, tasks: Sequence[int], mean: Literal["token", "sequence"]) -> Floats:
        """[N] share of each token in the mean over some tasks; 0 outside of them.

        Args:
            tasks: Tasks of the optimizer step.
            mean: ``token``: 1 / tokens. ``sequence``: 1 / (verdicts * tokens of the verdict).
        """
        verdicts, tokens = self.select(tasks)
        shares = np.zeros(self.n_tokens)
        if mean == "token":
            shares[tokens] = 1.0 / len(tokens)
        else:
            lengths = self.lengths[verdicts]
            shares[tokens] = np.repeat(1.0 / (len(verdicts) * lengths), lengths)
        return shares

    def select(self, tasks: Sequence[int]) -> tuple[Ints, Ints]:
        """Verdicts [v] and tokens [n] of some tasks, as indices in ascending order."""
        verdicts = np.flatnonzero(np.isin(self.task, np.asarray(tasks, dtype=np.int64)))
        tokens = [np.arange(self.starts[v], self.starts[v + 1]) for v in verdicts]
        return verdicts, np.concatenate(tokens) if tokens else np.empty(0, dtype=np.int64)

    @classmethod
    def of(cls, rollouts: Sequence[Rollout]) -> "Experience":
        """Lay out rollouts flat; nothing is computed by a model yet."""
        verdicts: list[Verdict] = []
        tasks: list[int] = []
        starts = [0]
        units: list[tuple[PromptUnit, ...]] = []

        def unit(task: int, group: PromptGroup) -> PromptUnit:
            cells = []
            for verdict in group.verdicts:
                cells.append(starts[-1])
                starts.append(starts[-1] + len(verdict.response_token_ids))
                verdicts.append(verdict)
                tasks.append(task)
            return PromptUnit(group.prompt_token_ids, tuple(v.response_token_ids for v in group.verdicts), tuple(cells))

        for task, rollout in enumerate(rollouts):
            units.append(tuple(unit(task, group) for group in rollout.prompts))
        return cls(
            rollouts=tuple(rollouts),
            verdicts=tuple(verdicts),
            task=np.array(tasks, dtype=np.int64),
            starts=np.array(starts, dtype=np.int64),
            units=tuple(units),
            rewards=np.array([v.reward for v in verdicts], dtype=np.float64),
            engine=np.array([x for v in verdicts for x in v.engine_logprobs], dtype=np.float64),
        )
