"""Signals that arrive while an orderly end is under way wait for it."""

import os
import signal
import threading

import pytest

from knowrl_core.worker.process import signals_held


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_arrives_afterwards(number):
    came = []
    before = signal.signal(number, lambda got, _frame: came.append(got))
    other = threading.Thread(target=threading.Event().wait, args=(0.2,))  # would take a masked signal
    try:
        other.start()
        with signals_held():
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            assert sum(range(100_000))  # time for a handler to run
            assert came == []
        assert came == [number]
    finally:
        signal.signal(number, before)
        other.join()


def test_the_handlers_are_put_back_and_other_threads_are_left_alone():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), signals_held():
        raise ZeroDivisionError
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

    def hold():
        with signals_held():
            pass

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
