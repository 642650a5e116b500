"""Labelled sets that a model is measured on: one module a set, and what their loaders share."""

from knowrl_core.evaluation.benchmarks.model import Benchmark, BenchmarkTask, LeftOuts
from knowrl_core.evaluation.benchmarks.registry import BENCHMARKS, find_benchmark
from knowrl_core.evaluation.benchmarks.seed_file import from_seeds
from knowrl_core.evaluation.benchmarks.source import find_files

__all__ = ["BENCHMARKS", "Benchmark", "BenchmarkTask", "LeftOuts", "find_benchmark", "find_files", "from_seeds"]
