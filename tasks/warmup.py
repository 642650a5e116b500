"""Stage ``update`` of a warm-up, which is iteration 1: supervised verdicts on the seeds.

The optimizer state that it leaves is not gone on with: the loop's first update starts a fresh one, at the beginning of
its schedule (see ``RunContext.optimizer_folder``).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from knowrl_core.config import Config
from knowrl_core.config.rl import RLConfig, WarmupConfig
from knowrl_core.engines import GenerationEngine
from knowrl_core.prompts import View, check_views
from knowrl_core.rl import FlatVerdict, Rollout, UpdateJob, Verdict
from knowrl_core.rng import derive_seed
from knowrl_core.seeds import SeedTask
from knowrl_core.seeds.draw import draw_seeds
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import GENERATE, UPDATE, StageKey
from knowrl_core.storage.manifest import FileRef
from knowrl_core.storage.retention import CHECKPOINT
from knowrl_core.verdicts.ask import Ask, Question, plan_asks
from knowrl_core.verdicts.supervised import target_request
from tasks.context import RunContext
from tasks.generate import CANDIDATES, held_out
from tasks.labelled_sets import benchmark_refs
from tasks.stage import Stage, engine_slice, stage_task, track
from tasks.update import run_job


def _config(config: Config) -> dict[str, Any]:
    return {
        "warmup": config.warmup.model_dump(mode="json"),
        "views": {view.name: view.variables() for view in warmup_views(config)},
        "mode": config.verdict.mode,
        "held_out": sorted(item.name for item in config.evaluation.benchmarks),
        "rl": config.rl.model_dump(mode="json", exclude={"save_steps"}),
        "engine": engine_slice(config),
    }


def _inputs(ctx: RunContext, key: StageKey) -> list[FileRef]:
    return [
        *ctx.pin_refs("files.feasible", "files.infeasible", "files.probe"),
        *benchmark_refs(ctx.config),
        ctx.ref(StageKey(0, GENERATE), CANDIDATES),
        *ctx.template_refs([ctx.inputs.prompts.verdict(ctx.config.verdict.mode)]),
        *ctx.decision_refs(key.iteration),
        *ctx.checkpoint_refs(ctx.parent(key.iteration)),
    ]


def _body(ctx: RunContext, key: StageKey, writer: StageWriter) -> None:
    """Supervised warm-up: the likelihood of the right verdict on each seed is maximised."""
    config = ctx.config
    measured = [text for tasks in held_out(ctx, key).values() for _, text in tasks]
    seeds = draw_seeds(ctx.inputs.seeds, share=config.warmup.share, run_seed=ctx.seed, held_out=measured)
    parent = ctx.parent(key.iteration)
    rollouts = tuple(_rollouts(ctx, key, seeds, parent))
    job = UpdateJob(
        device="cpu",  # the worker knows what there is, and sets it
        objective="supervised",
        policy_dir=ctx.policy_folder(parent),
        reference_dir=None,
        optimizer_dir=None,
        output_dir=writer.path(CHECKPOINT),
        rollouts=rollouts,
        rl=supervised(config.rl, config.warmup, tasks=len(rollouts)),
        shuffle_seed=derive_seed(ctx.seed, key.iteration, UPDATE, "order"),
        non_finite="discard",  # a guard decides what follows, once the iteration is evaluated
    )
    run_job(ctx, writer, job, parent)
    # Every right verdict counts as rewarded; as a mean reward beside those of the loop that would say nothing.
    writer.metrics = {name: value for name, value in writer.metrics.items() if not name.startswith("reward/")}


def warmup_views(config: Config) -> tuple[View, ...]:
    """The views in which each seed is asked.

    Raises:
        InputError: One is unknown.
    """
    if not config.warmup.views:
        return check_views(config.verdict.views)
    return check_views(config.warmup.views, field="warmup.views")


def supervised(rl: RLConfig, warmup: WarmupConfig, *, tasks: int) -> RLConfig:
    """The update's config with the batches, epochs and constant learning rate of the warm-up.

    All seeds are one rollout batch, so that steps are filled from all of them, in a new order each epoch.
    """
    return rl.model_copy(
        update={
            "learning_rate": warmup.learning_rate,
            "min_learning_rate": 0.0,
            "warmup_steps": 0,
            "decay_steps": 0,
            "epochs": warmup.epochs,
            "train_batch_size": warmup.batch_size,
            "rollout_batch_size": max(1, tasks),
            "kl_coef": 0.0,
        }
    )


def _rollouts(ctx: RunContext, key: StageKey, seeds: Sequence[SeedTask], policy: int) -> Iterator[Rollout]:
    """The right verdict on each seed in each view, tokenised and scored by the engine."""
    views = warmup_views(ctx.config)
    asks = plan_asks(
        [Question(f"seed/{seed.id}", seed.task) for seed in seeds],
        ctx.inputs.prompts.verdict(ctx.config.verdict.mode),
        ctx.config.verdict.model_copy(update={"views": tuple(view.name for view in views)}),
        k=len(views),
        run_seed=ctx.seed,
        iteration=key.iteration,
        stage=UPDATE,
    )
    engine = ctx.engine(key, ctx.engine_spec(policy))
    verdicts = _answers(ctx, asks, {f"seed/{seed.id}": seed for seed in seeds}, engine)
    for start, seed in zip(range(0, len(asks), len(views)), seeds, strict=True):
        own = verdicts[start : start + len(views)]
        yield Rollout.from_verdicts(f"seed/{seed.id}", own, label=seed.label, anchor=True)


def _answers(
    ctx: RunContext, asks: Sequence[Ask], seeds: dict[str, SeedTask], engine: GenerationEngine
) -> list[FlatVerdict]:
    requests = []
    for ask in asks:
        seed = seeds[ask.question.id]
        requests.append(target_request(ask, seed.label, seed.reason, ctx.config.verdict.mode))
    answers = track(engine.choose(requests), ctx, len(requests))
    return [
        FlatVerdict(
            answer.prompt_token_ids,
            Verdict(
                sample=ask.samples.start,
                response_token_ids=answer.token_ids[0],
                engine_logprobs=answer.token_logprobs[0],
                reward=1.0,
            ),
        )
        for ask, answer in zip(asks, answers, strict=True)
    ]


STAGE = Stage(name=UPDATE, config=_config, inputs=_inputs, body=_body)
warmup = stage_task(STAGE)
