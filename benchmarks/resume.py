"""What going on with a long run costs before any work: 30 iterations of 10,000 tasks each.

    .venv/bin/pip install --constraint requirements.lock --editable '.[dev]'
    .venv/bin/python benchmarks/resume.py

A real smoke run of one iteration is made; its tables are enlarged to the wanted number of tasks and committed again as
all further iterations, and an additional file stands for the checkpoints. Then the same command is given again, which
finds everything committed, for the small run and for the large one: the difference is the price of history. The first
time MLflow has not seen that history; a run that logged as it went is like the later times, with every file hashed
again if it was never resumed before. Beside it: verification of all files, and plain reading of the same bytes (both
from the page cache, if they fit into it).
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.compare import out
from knowrl_core.storage.commit import StageWriter
from knowrl_core.storage.layout import RunPaths, StageKey, stage_keys
from knowrl_core.storage.manifest import MANIFEST
from knowrl_core.storage.retention import CHECKPOINT
from knowrl_core.storage.run_file import RunFile
from knowrl_core.storage.verify import inspect_run
from tests.e2e.helpers import KNOWRL, TINY, environment_of

SMALL = "smoke"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code, 1 if going on costs more than the bound."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--iterations", type=int, default=30, help="iterations (30)")
    parser.add_argument("--tasks", type=int, default=10_000, help="tasks of each iteration (10000)")
    parser.add_argument("--checkpoint-mb", type=int, default=1_600, help="bytes of each kept checkpoint, in MB (1600)")
    parser.add_argument("--bound", type=float, default=5.0, help="seconds that history may cost (5)")
    parser.add_argument("--folder", type=Path, help="folder for the runs (the system's temporary one)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="knowrl-resume-", dir=options.folder) as folder:
        root = Path(folder)
        small, large = RunPaths(root / "small", SMALL), RunPaths(root / "large", SMALL)
        _give(small, root, iterations=1)
        before = _give(small, root, iterations=1)
        shutil.copytree(small.root, large.root)
        _enlarge(large, options.iterations, options.tasks, options.checkpoint_mb * 1_000_000)
        first = _give(large, root, iterations=options.iterations)
        second = _give(large, root, iterations=options.iterations)
        large.seen_file.unlink()
        unseen = _give(large, root, iterations=options.iterations)
        keys = tuple(stage_keys(options.iterations, warmup=False))
        begin = time.perf_counter()
        found = inspect_run(large, keys)
        verified = time.perf_counter() - begin
        begin = time.perf_counter()
        size = _read_all(large.folder / "iterations")
        read = time.perf_counter() - begin
    out.print(
        f"{options.iterations} iterations of {options.tasks:,} tasks: {found.files} files, {found.size / 1e6:,.0f} MB"
    )
    out.print(f"nothing to do, one iteration:            {before:.1f} s")
    out.print(f"nothing to do, all of them, first time:  {first:.1f} s ({first - before:+.1f} s)")
    out.print(f"nothing to do, all of them, once more:   {second:.1f} s ({second - before:+.1f} s)")
    out.print(f"the same, with every file hashed again:  {unseen:.1f} s ({unseen - before:+.1f} s)")
    out.print(f"verify: {verified:.1f} s, {found.size / verified / 1e6:,.0f} MB/s; plain reading: {read:.1f} s, "
              f"{size / read / 1e6:,.0f} MB/s")  # fmt: skip
    return 1 if found.problems or unseen - before > options.bound else 0


def _give(paths: RunPaths, home: Path, *, iterations: int) -> float:
    """Seconds of the command."""
    begin = time.perf_counter()
    options = [item for item in TINY if "tracking" not in item]
    options += [f"--set=run.root={paths.root}", f"--set=run.iterations={iterations}"]
    options += ["--set=retention.keep_last=2", "--set=retention.keep_best=false"]
    command = [*KNOWRL, "run", f"--config={SMALL}", *options]
    subprocess.run(command, check=True, env=environment_of(home / "prefect"), capture_output=True)
    return time.perf_counter() - begin


def _enlarge(paths: RunPaths, iterations: int, tasks: int, checkpoint: int) -> None:
    """Commit enlarged copies of iteration 1 as iterations 2 and later, with its own enlarged as well."""
    file = RunFile.read(paths)
    for key in stage_keys(iterations, warmup=False):
        source = paths.stage(StageKey(1, key.stage))
        if key.iteration == 0:
            continue
        if key.iteration == 1:
            shutil.move(source, source.with_name(f"{key.stage}.model"))
        source = source.with_name(f"{key.stage}.model")
        writer = StageWriter(paths, key, seed=file.seed, config={}, inputs=[])
        for path in sorted(source.rglob("*")):
            target = writer.folder / path.relative_to(source)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            elif path.suffix == ".parquet":
                _repeat(path, target, tasks)
            elif path.name == "decision.json":
                target.write_text(path.read_text().replace('"parent":1', f'"parent":{key.iteration}'))
            elif path.name != MANIFEST:
                shutil.copyfile(path, target)
        if (writer.folder / CHECKPOINT).exists() and key.iteration > iterations - 2:
            with (writer.folder / CHECKPOINT / "stands-for-weights.bin").open("wb") as big:
                for _ in range(checkpoint // 10_000_000):
                    big.write(bytes(10_000_000))
        writer.commit()
    for folder in (paths.folder / "iterations" / "001").glob("*.model"):
        shutil.rmtree(folder)


def _repeat(source: Path, target: Path, tasks: int) -> None:
    """Repeat a table's rows, with ids of their own, until it holds that many tasks."""
    table = pq.read_table(source)
    column = next((name for name in ("task_id", "id") if name in table.column_names), None)
    own = len(set(table.column(column).to_pylist())) if column else 0
    if not own:
        shutil.copyfile(source, target)
        return
    schema = table.schema
    with pq.ParquetWriter(target, schema) as writer:
        for copy in range(-(-tasks // own)):
            ids = pa.array([f"{value}-{copy}" for value in table.column(column).to_pylist()], schema.field(column).type)
            writer.write_table(table.set_column(table.column_names.index(column), schema.field(column), ids))


def _read_all(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    size += len(block)
    return size


if __name__ == "__main__":
    sys.exit(main())
