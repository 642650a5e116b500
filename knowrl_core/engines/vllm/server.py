"""A vLLM server of the pipeline's own, in another Python environment."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from knowrl_core.config.system import VllmConfig
from knowrl_core.engines.vllm.api import MODEL, VllmApi
from knowrl_core.engines.vllm.guardian import GRACE
from knowrl_core.errors import StageError
from knowrl_core.places import expanded
from knowrl_core.worker.process import end, free_port, tail

GUARDIAN: Final = "knowrl_core.engines.vllm.guardian"
_POLL: Final = 0.5
_NOT_PASSED: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables of this environment that would lead the other one astray."""
_DEFAULTS: Final = {
    "VLLM_SERVER_DEV_MODE": "1",  # sleep, wake, reload; the server listens on loopback only
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class VllmServer:
    """Starts ``vllm serve`` on a free port of 127.0.0.1, watches over it, and ends it.

    A guardian process ends it, too, when this process dies in whatever way.

    Args:
        config: Interpreter, further arguments, times.
        dtype: ``fp32`` or ``bf16``.
        log: File that takes the server's output.
        cuda: Whether it runs on GPUs, where it can sleep.
        adapter_rank: Largest rank of LoRA adapters that it has to take while it runs; 0 for none.
    """

    def __init__(self, config: VllmConfig, *, dtype: str, log: Path, cuda: bool, adapter_rank: int = 0) -> None:
        self._config, self._dtype, self.log, self.cuda = config, dtype, log, cuda
        self.adapter_rank = adapter_rank
        self._process: subprocess.Popen[bytes] | None = None
        self._key = secrets.token_urlsafe(24)
        self.starts = 0
        """How often it was started."""

    def start(self, folder: Path) -> VllmApi:
        """Start it on the weights in a folder; returns when it answers.

        Raises:
            StageError: It ended, or did not answer in time; the log's tail is in the message.
        """
        self.close()
        port = free_port()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and the program that the config names
                [sys.executable, "-m", GUARDIAN, *self._command(folder, port)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**_environment(os.environ), "VLLM_API_KEY": self._key},
            )
        self.starts += 1
        api = VllmApi(
            f"http://127.0.0.1:{port}",
            timeout=self._config.request_timeout,
            connections=self._config.concurrency,
            key=self._key,
        )
        deadline = time.monotonic() + self._config.start_timeout
        while not api.healthy():
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                api.close()
                self.close()
                happened = (
                    f"did not answer within {self._config.start_timeout:g} s" if code is None else f"ended with {code}"
                )
                raise StageError(
                    f"the vLLM server {happened}\n{tail(self.log)}",
                    hint=f"Log: {self.log}. See engine.vllm.args and engine.vllm.start_timeout; `make vllm` builds the "
                    "environment.",
                )
            time.sleep(_POLL)
        return api

    def close(self) -> None:
        """End it; its memory is free when this returns."""
        if self._process is not None:
            end(self._process, grace=GRACE + 5.0)  # the guardian leaves when its standard input is closed
            self._process = None

    def _command(self, folder: Path, port: int) -> list[str]:
        options = {
            "--host": "127.0.0.1",
            "--port": str(port),
            "--served-model-name": MODEL,
            "--dtype": "float32" if self._dtype == "fp32" else "bfloat16",
            "--generation-config": "vllm",
            "--seed": "0",
        }
        # On the CPU a seeded request whose prompt comes in chunks ends the engine (vLLM 0.32): it wants to set back a
        # generator that cannot be.
        flags = ["--enable-prefix-caching", "--enable-sleep-mode" if self.cuda else "--no-enable-chunked-prefill"]
        if self.adapter_rank:
            flags += ["--enable-lora", "--max-lora-rank", str(self.adapter_rank)]
        python = str(expanded(self._config.python).absolute())
        return [
            *(python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder.absolute())),
            *(word for option in options.items() for word in option),
            *flags,
            *self._config.args,
        ]


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in given.items() if name not in _NOT_PASSED}
    return {**_DEFAULTS, **kept}
