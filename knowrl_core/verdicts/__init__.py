"""Self-assessment: the model judges tasks, blind to the label they were made or verified under."""

from knowrl_core.verdicts.ask import expected_steps
from knowrl_core.verdicts.judge import judge_tasks
from knowrl_core.verdicts.parse import parse_verdict

__all__ = ["expected_steps", "judge_tasks", "parse_verdict"]
