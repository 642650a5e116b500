"""Tell an interruption from a failure."""

from collections.abc import Iterator

from prefect.exceptions import ExternalSignal


def is_interruption(error: BaseException) -> bool:
    """Whether Control-C or SIGTERM is behind an exception.

    The signal itself need not be what arrives: Prefect reports the end of a run to its server while it handles the
    signal, and a server that cannot be reached just then puts an error of its own in the signal's place.

    Args:
        error: What ended the run.
    """
    return any(isinstance(item, KeyboardInterrupt | ExternalSignal) for item in _behind(error))


def _behind(error: BaseException) -> Iterator[BaseException]:
    """An exception, its causes and what was being handled when they were raised, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        item = waiting.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        waiting += [item.__cause__, item.__context__]
