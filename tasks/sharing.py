"""How far runs with different configs have the same past, so that it is computed once."""

from knowrl_core.config import Config
from knowrl_core.errors import InputError
from knowrl_core.storage.layout import CLASSIFY, CONSENSUS, EVALUATE, GENERATE, UPDATE, RunPaths, StageKey
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.verify import committed_manifests
from tasks import classify, consensus, evaluate, generate, update, warmup
from tasks.prepare import Inputs
from tasks.stage import Stage
from tasks.starting import is_warmup, keys_of, starting_points

_STAGES = {
    GENERATE: generate.STAGE,
    CLASSIFY: classify.STAGE,
    CONSENSUS: consensus.STAGE,
    UPDATE: update.STAGE,
    EVALUATE: evaluate.STAGE,
}


def shared_until(old: RunPaths, config: Config, inputs: Inputs) -> StageKey | None:
    """The latest stage at which a run can be forked from another one without changing what it would compute.

    A stage is the same where its slice of the config is, since the stages before it, the seed and what both runs get
    from outside are. What the other run redid or repaired does not matter: its manifests say what it has.

    Args:
        old: The other run.
        config: The config of the run that is to be made.
        inputs: What that run gets from outside.

    Returns:
        None where nothing can be shared.

    Raises:
        ArtifactError: A manifest of the other run is broken.
    """
    record = RunFile.read(old)
    now = config.model_dump(mode="json")
    if any(record.config.get(part) != now[part] for part in ("prompts", "files")):
        return None
    try:
        same_name = config.run.model_copy(update={"name": record.name})
        record.check_past(config.model_copy(update={"run": same_name}), inputs.pins, lambda _key: True)
    except InputError:
        return None
    keys = keys_of(config)
    history = committed_manifests(old, keys)
    first = next(
        (key for key in keys if key not in history or history[key].config != _stage(config, key).config(config)), None
    )
    # A run that is as long and has no other stage is not forked but finished: its last stage is done once more.
    end = keys.index(first) if first is not None else len(keys) - 1
    return max((at for at in starting_points(old, keys) if 0 < keys.index(at) <= end), key=keys.index, default=None)


def _stage(config: Config, key: StageKey) -> Stage:
    return warmup.STAGE if key.stage == UPDATE and is_warmup(config, key.iteration) else _STAGES[key.stage]
