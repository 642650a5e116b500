"""A run on disk whose stages hold no more than the guards and what depends on them look at."""

from types import SimpleNamespace

from knowrl_core.config.guards import GuardsConfig
from knowrl_core.guards import DECISION, GUARD_TABLE, judge_iteration, parent_of, read_decision
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import EVALUATE, GENERATE, UPDATE, RunPaths, StageKey
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.schemas import GuardRecord

ROLLBACK = {"label_balance": {"action": "rollback"}}


class Run:
    """Commits iterations of the stages generate, update and evaluate."""

    def __init__(self, root, **guards):
        self.paths = RunPaths(root, "run")
        self.history = {}
        self.config = GuardsConfig.model_validate(guards)

    def configure(self, **guards):
        self.config = GuardsConfig.model_validate(guards)

    def iteration(self, number, truth, *, called=0.5, warmup=False):
        """Commit an iteration with this balanced accuracy and share called feasible on the probe."""
        if not warmup:
            self._commit(StageKey(number, GENERATE), {}, {})
        if number:
            parent = parent_of(self.paths, number)
            files = {"checkpoint/model.safetensors": f"weights {number} from {parent}"}
            self._commit(StageKey(number, UPDATE), {"reward/candidates": 0.9}, files, inputs=self._policy(parent))
        key = StageKey(number, EVALUATE)
        writer = self._writer(key, inputs=self._policy(number))
        writer.metrics |= {"probe/balanced_accuracy": truth, "probe/called_feasible": called}
        firings, decision = judge_iteration(self.config, self.paths, self.history, number, writer.metrics)
        writer.metrics["guards/fired"] = len(firings)
        writer.write(GUARD_TABLE, GuardRecord, firings)
        writer.path(DECISION).write_text(decision.text())
        self.history[key] = writer.commit()
        return decision

    def roll_back(self, *later):
        """Iterations 0 to 3, of which 1 is the best and 3 collapses, and after them as many as there are truths.

        So iteration 4 begins with the checkpoint of 1.
        """
        self.configure(**ROLLBACK)
        for number, truth in enumerate((0.5, 0.8, 0.7)):
            self.iteration(number, truth)
        self.iteration(3, 0.6, called=1.0)
        for number, truth in enumerate(later, start=4):
            self.iteration(number, truth)

    def kept(self):
        """Iterations whose checkpoint is there."""
        return [key.iteration for key in self.history if self.paths.file(key, "checkpoint").exists()]

    def context(self, retention=None):
        """As much of an open run as retention needs."""
        return SimpleNamespace(
            paths=self.paths,
            history=self.history,
            decision=lambda iteration: read_decision(self.paths, iteration),
            config=SimpleNamespace(retention=retention, guards=self.config),
            reporter=SimpleNamespace(message=lambda text: None, warning=lambda text: None),
        )

    def _policy(self, number):
        files = self.history[StageKey(number, UPDATE)].outputs if number else ()
        return [FileRef(path=ref.path, sha256=ref.sha256) for ref in files]

    def _writer(self, key, inputs):
        if key.iteration:
            previous = self.history[StageKey(key.iteration - 1, EVALUATE)].outputs
            inputs = [*inputs, *(FileRef(path=r.path, sha256=r.sha256) for r in previous if r.path.endswith(DECISION))]
        return StageWriter(self.paths, key, seed=1, config={}, inputs=inputs)

    def _commit(self, key, metrics, files, inputs=()):
        writer = self._writer(key, inputs)
        writer.metrics |= metrics
        for name, text in files.items():
            writer.path(name).parent.mkdir(exist_ok=True)
            writer.path(name).write_text(text)
        self.history[key] = writer.commit()
