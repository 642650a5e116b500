"""A signal is recognised behind whatever arrives in its place."""

import pytest
from prefect.exceptions import TerminationSignal

from tasks.interruption import is_interruption


def caught(body):
    """The exception that a function ends with."""
    with pytest.raises(BaseException) as found:  # noqa: PT011 - the exception is what is looked at
        body()
    return found.value


def replaced_by_a_server_error(signal):
    """The server fails while the signal is handled, as in Prefect's engines."""

    def body():
        try:
            try:
                raise signal
            except BaseException:
                raise ConnectionError("All connection attempts failed")  # noqa: B904 - as Prefect does
        except ConnectionError as error:
            raise RuntimeError("the state could not be reported") from error

    return caught(body)


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), TerminationSignal(15)])
def test_a_signal_is_an_interruption_also_behind_other_errors(signal):
    assert is_interruption(signal)
    assert is_interruption(replaced_by_a_server_error(signal))


def test_a_failure_is_none():
    def body():
        try:
            raise ValueError("the first")
        except ValueError:
            raise OSError(28, "No space left on device")  # noqa: B904

    assert not is_interruption(caught(body))
    assert not is_interruption(SystemExit(3))


def test_exceptions_that_lead_in_a_circle_end():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_interruption(first)
    second.__context__ = KeyboardInterrupt()
    assert is_interruption(first)
