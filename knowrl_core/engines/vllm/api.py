"""What is asked of one vLLM server, over its OpenAI-compatible API."""

import json
from pathlib import Path
from typing import Any, Final

import httpx

from knowrl_core.errors import StageError

MODEL: Final = "policy"
"""Name under which the pipeline's own servers serve the policy."""
_SHOWN: Final = 500


class ServerGoneError(Exception):
    """The server did not answer, or answered with an error of its own; another attempt may help."""


class VllmApi:
    """One server.

    Args:
        url: Its address, without ``/v1``.
        timeout: Seconds that one request may take.
        connections: Most requests at a time.
        key: API key, if the server wants one.
    """

    def __init__(self, url: str, *, timeout: float, connections: int, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        # No proxy and no .netrc: the address alone says where the prompts go.
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=self.url, timeout=timeout, limits=limits, headers=headers, trust_env=False)
        self._timeout = timeout
        self.base = MODEL
        """Name of the weights that the server was started on."""
        self.policy = MODEL
        """Name under which it serves the policy: that of its weights, or of an adapter on them."""

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def healthy(self) -> bool:
        """Whether the server is up and its engine lives."""
        try:
            return self._client.get("/health", timeout=5.0).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def get_to_know(self) -> int:
        """Learn the name of the server's weights; returns the most tokens of a prompt and its answer.

        Raises:
            ServerGoneError: The server does not answer as vLLM does.
        """
        answer = self._ask("GET", "/v1/models")
        try:
            names = [str(model["id"]) for model in answer["data"]]
            self.base, context = names[0], int(answer["data"][0]["max_model_len"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerGoneError(f"{self.url}/v1/models names no model with a max_model_len") from error
        if self.policy not in names:
            self.policy = self.base
        return context

    def complete(self, payload: dict[str, Any]) -> dict[str, Any]:
        """One completion request.

        Raises:
            ServerGoneError: No answer, or one that is not that of a working server.
            StageError: The server refuses the request.
        """
        return self._ask("POST", "/v1/completions", payload)

    def sleep(self, level: int) -> bool:
        """Free the memory of the device; False where the server cannot."""
        return self._try("/sleep", params={"level": level, "mode": "wait"})

    def wake(self) -> bool:
        """Take the memory of the device again; False where the server cannot."""
        return self._try("/wake_up")

    def reload(self, folder: str) -> bool:
        """Load the weights of a folder into the running engine, and forget what the old ones left in the cache."""
        call = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
        if not (self._try("/collective_rpc", json=call) and self._try("/reset_prefix_cache")):
            return False
        self.policy = self.base
        return True

    def put_adapter(self, name: str, folder: Path) -> bool:
        """Load a LoRA adapter under a name that belongs to its contents; False where the server cannot."""
        # Not in place: vLLM would read the files anew for every batch. A name that is there has the same contents.
        call = {"lora_name": name, "lora_path": str(folder.absolute())}
        return self._try("/v1/load_lora_adapter", json=call) or name in self._names()

    def _names(self) -> set[str]:
        """All names under which the server serves something; none if it does not answer."""
        try:
            return {str(model["id"]) for model in self._ask("GET", "/v1/models")["data"]}
        except (ServerGoneError, StageError, KeyError, TypeError):
            return set()

    def drop_adapter(self, name: str) -> bool:
        """Forget an adapter; False where the server cannot."""
        return self._try("/v1/unload_lora_adapter", json={"lora_name": name})

    def _try(self, path: str, **options: Any) -> bool:
        try:
            return self._client.post(path, **options).is_success
        except httpx.HTTPError:
            return False

    def _ask(self, method: str, path: str, payload: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, json=payload)
        except httpx.TimeoutException as error:
            raise ServerGoneError(f"no answer within {self._timeout:g} s") from error
        except httpx.HTTPError as error:
            raise ServerGoneError(f"{type(error).__name__}: {error}") from error
        if response.is_server_error or response.status_code == httpx.codes.NOT_FOUND:
            raise ServerGoneError(f"HTTP {response.status_code}: {_shown(response)}")
        if response.is_error:
            raise StageError(
                f"{self.url} refused a request: HTTP {response.status_code}: {_shown(response)}",
                hint="Expected a vLLM server that serves this policy; look at its log and at engine.vllm.",
            )
        try:
            answer = response.json()
        except json.JSONDecodeError as error:
            raise ServerGoneError(f"the answer is no JSON: {_shown(response)}") from error
        if not isinstance(answer, dict):
            raise ServerGoneError(f"the answer is no JSON object: {_shown(response)}")
        return answer


def _shown(response: httpx.Response) -> str:
    return response.text[:_SHOWN].strip() or "(empty)"
