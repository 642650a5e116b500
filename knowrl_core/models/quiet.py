"""Keeps third-party progress bars and notices off the user's screen."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from tqdm.std import tqdm  # type: ignore[import-untyped]
from transformers.utils import logging as transformers_logging

_LOGGERS = ("transformers", "huggingface_hub", "tokenizers", "gguf", "torch")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers and huggingface_hub inside the block: bars, warnings and log lines below an error.

    KnowRL reports what matters itself. Settings are put back afterwards. What is printed all the same goes to standard
    error, since standard output is for results: DeepSpeed, which transformers loads where it is installed, logs there.
    """
    # Some modules of transformers use tqdm itself, past the library's own switch: tell every bar made in here.
    start_bar = tqdm.__init__

    def start_disabled(self: Any, *args: Any, **kwargs: Any) -> None:
        start_bar(self, *args, **{**kwargs, "disable": True})

    switch: Any = transformers_logging  # untyped
    bars = switch.is_progress_bar_enabled()
    hub_bars_off = are_progress_bars_disabled()
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        tqdm.__init__ = start_disabled
        switch.disable_progress_bar()
        disable_progress_bars()
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        tqdm.__init__ = start_bar
        if bars:
            switch.enable_progress_bar()
        if not hub_bars_off:
            enable_progress_bars()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
