"""Which weights the servers serve: loaded while they run where they can, and compared with the checkpoint."""

import logging
import tempfile
from pathlib import Path
from typing import Any, Final

from knowrl_core.engines.vllm.adapters import Adapter, read_adapter, write_difference
from knowrl_core.engines.vllm.api import ServerGoneError, VllmApi
from knowrl_core.engines.vllm.fleet import Fleet
from knowrl_core.engines.vllm.served import Fingerprint
from knowrl_core.engines.vllm.server import VllmServer
from knowrl_core.errors import StageError

_log: Final = logging.getLogger(__name__)


class ServedPolicy:
    """The servers and the policy on them.

    Args:
        fleet: The servers.
        tokenizer: The policy's tokenizer.
        dtype: ``fp32`` or ``bf16``, in which the servers compute.
        verify: Compare what is served with the checkpoint after each change of weights.
        server: The pipeline's own server, which is the fleet's only one; None for servers that others run.
    """

    def __init__(
        self, fleet: Fleet, tokenizer: Any, *, dtype: str, verify: bool, server: VllmServer | None = None
    ) -> None:
        self.fleet = fleet
        self.folder: Path | None = None
        """Checkpoint that is served; the own server starts on it again if it dies."""
        self.context = 0
        """Most tokens of a prompt and its answer."""
        self._tokenizer, self._dtype, self._verify, self._server = tokenizer, dtype, verify, server
        self._before: Fingerprint | None = None
        self._below: Adapter | None = None
        """The adapter that the weights of the own server hold already."""
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        """The files of the difference that is served; they go with the object."""

    def load(self, folder: Path) -> None:
        """Serve the weights in a folder.

        While the servers run, where they can. The pipeline's own one is started again where it cannot.

        Args:
            folder: The checkpoint. Servers that others run must see it at the same path.

        Raises:
            StageError: A server serves other weights and cannot load these.
        """
        expected = Fingerprint(folder, self._tokenizer, self._dtype) if self._verify else None
        self.context = 0
        if self._server is None:
            for api in self.fleet.apis:
                self._load_elsewhere(api, folder, expected)
        elif not self._load_in_place(self._server, folder, expected):
            self.fleet.close()
            self.fleet.apis = [self._start(self._server, folder)]
            (api,) = self.fleet.apis
            self._get_to_know(api)
            if not self._matches(api, expected):
                raise self._other(api, folder, expected)
        self.folder, self._before = folder, expected

    def _start(self, server: VllmServer, folder: Path) -> VllmApi:
        api = server.start(folder)
        self._below = read_adapter(folder) if server.adapter_rank else None
        return api

    def _load_in_place(self, server: VllmServer, folder: Path, expected: Fingerprint | None) -> bool:
        """Load weights into the running server of one's own; False where there is none or it cannot be trusted.

        Only GPUs reload all weights: the CPU build answers that it did while a tied LM head stays the old one. An
        update is so small a step that log-probabilities may not show it. Adapters leave the LM head alone.
        """
        if not self.fleet.apis or not self.fleet.apis[0].healthy():
            return False
        (api,) = self.fleet.apis
        self._get_to_know(api)
        if server.cuda:
            return api.wake() and api.reload(str(folder.absolute())) and self._matches(api, expected)
        return bool(server.adapter_rank) and self._swap(api, folder, self._below) and self._matches(api, expected)

    def _load_elsewhere(self, api: VllmApi, folder: Path, expected: Fingerprint | None) -> None:
        """Load weights into a server of others.

        At first it may serve them already, and be unable to load any. What is below an adapter is unknown; the
        comparison tells whether it is what the run began with, so without one no adapter is tried.
        """
        self._get_to_know(api)
        awake = api.wake()
        if self.folder is None and expected is not None and self._matches(api, expected):
            return
        if expected is not None and self._swap(api, folder, None) and self._matches(api, expected):
            return
        if not (awake and api.reload(str(folder.absolute())) and self._matches(api, expected)):
            raise self._other(api, folder, expected)

    def _swap(self, api: VllmApi, folder: Path, below: Adapter | None) -> bool:
        """Put a checkpoint's adapter on the weights that a server holds; False where there is none or it cannot.

        Args:
            api: The server, which knows the name of its own weights.
            folder: The checkpoint.
            below: The adapter that the server's weights hold already.
        """
        new = read_adapter(folder)
        if new is None:
            return False
        put: Adapter | None = new
        before = self._scratch
        if below is not None:
            # The server may read the files again as long as it serves the adapter.
            self._scratch = tempfile.TemporaryDirectory(prefix="knowrl-adapter-")
            put = write_difference(new, below, Path(self._scratch.name))
        if put is None or not api.put_adapter(put.name, put.folder):
            return False
        old, api.policy = api.policy, put.name
        if old not in (api.base, api.policy):
            api.drop_adapter(old)
        if before is not None:
            before.cleanup()
        return True

    def revive(self) -> VllmApi:
        """Start the pipeline's own server again, on what it served."""
        if self._server is None or self.folder is None:
            raise StageError("no server of the pipeline's own has been started")
        return self._start(self._server, self.folder)

    def rest(self) -> None:
        """Free the devices' memory until the next :meth:`load`, where the servers can."""
        if self._server is not None and not self._server.cuda:
            if not self._server.adapter_rank:
                self._server.close()  # it would be started again anyway
            return
        for api in self.fleet.apis:
            if not api.sleep(2):
                _log.warning("%s cannot sleep: it keeps its memory during the update", api.url)

    def close(self) -> None:
        """End the pipeline's own server and all connections."""
        self.fleet.close()
        if self._server is not None:
            self._server.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _get_to_know(self, api: VllmApi) -> None:
        """Ask a server for its name of the policy and its context; the smallest context of all counts."""
        try:
            context = api.get_to_know()
        except ServerGoneError as error:
            raise StageError(f"{api.url} does not answer: {error}", hint=self.fleet.where) from error
        self.context = min(self.context or context, context)

    def _matches(self, api: VllmApi, expected: Fingerprint | None) -> bool:
        """Whether a server gives what the checkpoint gives and is not nearer to the one before; True if unchecked."""
        if expected is None:
            return True
        try:
            found = expected.ask(api)
        except ServerGoneError as error:
            raise StageError(
                f"{api.url} gave no log-probabilities of a prompt: {error}", hint=self.fleet.where
            ) from error
        difference = expected.difference(found)
        _log.info("%s: served and computed log-probabilities differ by %.2e in the mean", api.url, difference)
        old = self._before
        stale = old is not None and old.expected != expected.expected and old.difference(found) < difference
        return difference <= expected.tolerance and not stale

    def _other(self, api: VllmApi, folder: Path, expected: Fingerprint | None) -> StageError:
        found = (
            ""
            if expected is None
            else (f": log-probabilities of fixed prompts differ by more than {expected.tolerance:g} in the mean")
        )
        return StageError(
            f"{api.url} does not serve the weights in {folder}{found}",
            hint="A server of others must see this folder at the same path, compute in engine.dtype, and be started "
            "with VLLM_SERVER_DEV_MODE=1, so that it can load weights while it runs; for rl.lora, with --enable-lora "
            "and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 on the model that the run starts from.",
        )
