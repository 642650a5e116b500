"""How far the label shows in the surface of a task: classifiers that know nothing but words and lengths.

A seed set that a bag of words separates teaches a model the words and not its limits.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from knowrl_core.labels import INFEASIBLE, Label
from knowrl_core.seeds.duplicates import words

FOLDS: Final = 5
REPEATS: Final = 5
"""Splits averaged over. One split of a hundred rows is off by 0.05 either way; of many rows, one will do."""

_MANY: Final = 500

_MAX_FEATURES: Final = 50_000
_TOKEN = re.compile(r"\w+|[^\w\s]")


def _sizes(texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return words, characters and characters a word, on a log scale. Shape ``(len(texts), 3)``."""
    counts = np.array([(len(words(text)), len(text)) for text in texts], dtype=float).clip(min=1)
    logs = np.log(counts)
    return np.column_stack([logs, logs[:, 1] - logs[:, 0]])


def _opening(text: str) -> list[str]:
    """Return the first word and the first two as features."""
    first = words(text)[:2]
    return [first[0], " ".join(first)] if first else []


def classifier(kind: str) -> Any:
    """Return an untrained scikit-learn pipeline from texts to labels; ``kind`` is one of ``KINDS``."""
    # liblinear: a hundred short rows are no work for BLAS threads, which cost ten times as much on a busy machine.
    model = LogisticRegression(solver="liblinear", class_weight="balanced")
    if kind == "words":
        # Unlike the default, keeps one-letter words and signs: "I", "?" and ":" are cues as well.
        tfidf = TfidfVectorizer(
            ngram_range=(1, 2), tokenizer=_TOKEN.findall, token_pattern=None, max_features=_MAX_FEATURES
        )
        return make_pipeline(tfidf, model)
    if kind == "opening":
        return make_pipeline(CountVectorizer(analyzer=_opening, binary=True, max_features=_MAX_FEATURES), model)
    return make_pipeline(FunctionTransformer(_sizes), StandardScaler(), model)


KINDS: Final = {
    "words": "TF-IDF of words and word pairs",
    "opening": "the first two words",
    "length": "words and characters",
}
"""The classifiers: what each of them sees."""


def surface_score(kind: str, texts: Sequence[str], labels: Sequence[Label], groups: Sequence[str]) -> float:
    """Return the cross-validated balanced accuracy of a surface classifier; 0.5 is chance.

    Args:
        kind: One of ``KINDS``.
        texts: The tasks.
        labels: Their labels, both occurring at least ``FOLDS`` times.
        groups: Rows of one group stay in one fold (the twins of a pair).
    """
    x = np.array(texts, dtype=object)
    y = np.array([label == INFEASIBLE for label in labels], dtype=int)
    # The grouped splitter looks for the best fold group by group; without pairs that is time for nothing.
    # Fewer groups than folds can't be kept together at all.
    single = len(set(groups)) == len(groups) or len(set(groups)) < FOLDS
    splitter = StratifiedKFold if single else StratifiedGroupKFold
    scores = []
    for repeat in range(REPEATS if len(y) < _MANY else 1):
        guesses = np.zeros_like(y)
        folds = splitter(n_splits=FOLDS, shuffle=True, random_state=repeat)
        for train, test in folds.split(x, y, None if single else groups):
            # A fold may take all rows of a label along if nearly all of them are one group.
            one = len(set(y[train])) < 2
            guesses[test] = y[train][0] if one else classifier(kind).fit(x[train], y[train]).predict(x[test])
        scores.append(balanced_accuracy_score(y, guesses))
    return float(np.mean(scores))
