"""Which weights the servers serve: loaded in place where they can, and compared with the checkpoint."""

import logging
from pathlib import Path
from typing import Any, Final

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
        self.model = ""
        """Name under which the servers serve it."""
        self.context = 0
        """Most tokens of a prompt and its answer."""
        self._tokenizer, self._dtype, self._verify, self._server = tokenizer, dtype, verify, server
        self._before: Fingerprint | None = None

    def load(self, folder: Path) -> None:
        """Serve the weights in a folder.

        In place where a server can. The pipeline's own one is started again where it cannot.

        Args:
            folder: The checkpoint. Servers that others run must see it at the same path.

        Raises:
            StageError: A server serves other weights and cannot load these.
        """
        expected = self._fingerprint(folder)
        contexts = []
        for number, api in enumerate(list(self.fleet.apis)):
            if self._server is None:
                self._load_elsewhere(api, folder, expected)
            elif not self._load_in_place(api, folder, expected):
                _log.info("%s is started again on %s", api.url, folder)
                api.close()
                self.fleet.apis[number] = self._server.start(folder)
                self._check_served(self.fleet.apis[number], folder, expected)
            self.model, context = self._told(self.fleet.apis[number])
            contexts.append(context)
        self.folder, self.context, self._before = folder, min(contexts), expected

    def _load_in_place(self, api: VllmApi, folder: Path, expected: Fingerprint | None) -> bool:
        """Load weights into the running server of one's own; False where that cannot be trusted.

        The CPU build answers that it loaded them while a tied LM head stays the old one. An update is so small a step
        that log-probabilities may not show it.
        """
        if self._server is None or not self._server.cuda or not api.healthy():
            return False
        self.model, _ = self._told(api)
        return api.wake() and api.reload(str(self._server.view.of(folder))) and self._matches(api, expected)

    def _load_elsewhere(self, api: VllmApi, folder: Path, expected: Fingerprint | None) -> None:
        """Load weights into a server of others; at first it may serve them already, and be unable to load any."""
        self.model, _ = self._told(api)
        loaded = api.wake() and api.reload(str(folder.absolute()))
        known = self.folder is None and expected is not None
        if not (loaded or known) or not self._matches(api, expected):
            raise self._other(api, folder, expected)

    def _check_served(self, api: VllmApi, folder: Path, expected: Fingerprint | None) -> None:
        self.model, _ = self._told(api)
        if not self._matches(api, expected):
            raise self._other(api, folder, expected)

    def begin(self, folder: Path) -> None:
        """Start the pipeline's own server on a folder, as the fleet's only server.

        Raises:
            StageError: It does not start, or serves other weights.
        """
        if self._server is None:
            self.load(folder)
            return
        self.fleet.apis = [self._server.start(folder)]
        (api,) = self.fleet.apis
        self.folder = folder
        self._before = self._fingerprint(folder)
        self._check_served(api, folder, self._before)
        _, self.context = self._told(api)

    def revive(self) -> VllmApi:
        """Start the pipeline's own server again, on what it served."""
        if self._server is None or self.folder is None:
            raise StageError("no server of the pipeline's own has been started")
        return self._server.start(self.folder)

    def rest(self) -> None:
        """Free the devices' memory until the next :meth:`load`, where the servers can."""
        if self._server is not None and not self._server.cuda:
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

    def _told(self, api: VllmApi) -> tuple[str, int]:
        try:
            return api.model()
        except ServerGoneError as error:
            raise StageError(f"{api.url} does not answer: {error}", hint=self.fleet.where) from error

    def _fingerprint(self, folder: Path) -> Fingerprint | None:
        return Fingerprint(folder, self._tokenizer, self._dtype) if self._verify else None

    def _matches(self, api: VllmApi, expected: Fingerprint | None) -> bool:
        """Whether a server gives what the checkpoint gives and is not nearer to the one before; True if unchecked."""
        if expected is None:
            return True
        try:
            found = expected.ask(api, self.model)
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
            "with VLLM_SERVER_DEV_MODE=1, so that it can load weights while it runs.",
        )
