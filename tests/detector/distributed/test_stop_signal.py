"""A signal is only noted; the second Ctrl-C stops at once; the old handlers come back."""

import signal

import pytest

from detector.distributed.stop_signal import SIGNALS, StopRequest


def send(number: int) -> None:
    """Sends a signal to this thread: threads of earlier tests may not block what this thread blocks."""
    signal.raise_signal(number)


@pytest.fixture
def earlier():
    """Installs a handler for all SIGNALS; gives the list of signals that it got, and the handler."""
    calls = []

    def note(number, _frame) -> None:
        calls.append(number)
    for number in SIGNALS:
        signal.signal(number, note)
    return calls, note


def test_without_a_signal_no_stop_is_requested(earlier):
    with StopRequest() as stop:
        assert not stop.requested and stop.signal_name == ""


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_is_noted_by_name_and_does_nothing_else(number, earlier):
    with StopRequest() as stop:
        send(number)
        assert stop.requested and stop.signal_name == number.name
    assert earlier[0] == []


def test_slurms_signals_and_those_of_a_terminal_are_among_them():
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP} == set(SIGNALS)


def test_a_closed_terminal_is_without_effect_below_nohup(earlier):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest() as stop:
        send(signal.SIGHUP)
        assert not stop.requested


def test_the_second_ctrl_c_stops_at_once(earlier, capfd):
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        send(signal.SIGINT)
        assert stop.requested and "Ctrl-C again stops at once" in capfd.readouterr().err
        send(signal.SIGINT)
        pytest.fail("the second Ctrl-C was ignored")
    assert all(signal.getsignal(number) is earlier[1] for number in SIGNALS)


def test_torchrun_may_send_the_ctrl_c_of_the_terminal_once_more(earlier, monkeypatch, capfd):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        send(signal.SIGINT)
        send(signal.SIGINT)
        assert stop.requested and capfd.readouterr().err.count("Ctrl-C again stops at once") == 1
        monkeypatch.setattr("detector.distributed.stop_signal.REPEATED_S", 0)
        send(signal.SIGINT)


@pytest.mark.parametrize("number", [n for n in SIGNALS if n != signal.SIGINT])
def test_other_signals_may_come_again(number, earlier):
    """Slurm warns with SIGUSR1 and follows with SIGTERM."""
    try:
        with StopRequest() as stop:
            for again in (number, number, signal.SIGTERM):
                send(again)
    except KeyboardInterrupt:  # it would end the tests
        pytest.fail(f"a second {number.name} did not wait for the end of the step")
    assert stop.requested and stop.signal_name == "SIGTERM"


def test_the_old_handlers_come_back(earlier):
    calls, note = earlier
    with StopRequest():
        assert all(signal.getsignal(number) is not note for number in SIGNALS)
    for number in SIGNALS:
        assert signal.getsignal(number) is note
        send(number)
    assert calls == list(SIGNALS)
    with pytest.raises(ValueError), StopRequest():
        raise ValueError
    assert all(signal.getsignal(number) is note for number in SIGNALS)


def test_a_signal_that_came_while_signals_were_blocked_is_noted_at_once(earlier):
    """A launcher may start the process with these signals blocked, so that none kills it before they can be noted."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        send(signal.SIGUSR1)
        with StopRequest() as stop:
            assert stop.requested and stop.signal_name == "SIGUSR1"
            send(signal.SIGTERM)
            assert stop.signal_name == "SIGTERM"
        assert set(SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, [])  # as it was found
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    assert earlier[0] == []


def test_once_the_exit_status_is_known_no_signal_changes_it(earlier):
    with StopRequest() as stop:
        stop.ignore_further_signals()
        send(signal.SIGTERM)
        assert not stop.requested
    send(signal.SIGTERM)
    assert earlier[0] == [] and signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
