"""When the plugin registers: each case of docs/kubelets.md, decided from a state and a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from moffett_device_plugin.deviceplugin.registration import (
    NO_CALL,
    Action,
    Backoff,
    Bind,
    Observed,
    Register,
    RegistrationTimeouts,
    RegistrationTrigger,
    State,
    Wait,
    accepted,
    decide,
    not_listening,
    observed,
    refused,
    unreachable,
)
from moffett_device_plugin.resources.plugin_config import PluginOptions

T = RegistrationTimeouts()
NOW = 1000.0
TRIGGER = RegistrationTrigger(kubelet=(1, 1, 1))
SERVED = Observed(TRIGGER, bound=True, listening=True)
#: Registered for long, and the kubelet listens.
REGISTERED = State(SERVED, Backoff(0, NOW - 60), TRIGGER, NOW - 60)


def seen(state: State = REGISTERED, now: float = NOW, **changes: Any) -> State:
    """After something changed."""
    return observed(state, replace(SERVED, **changes), now, T)


def triggered(state: State = REGISTERED, now: float = NOW, **changes: Any) -> State:
    return seen(state, now, trigger=replace(TRIGGER, **changes))


@pytest.mark.parametrize(
    ("state", "action"),
    [
        pytest.param(REGISTERED, Wait(), id="nothing changed"),
        pytest.param(
            seen(directory="/dp"), Wait(reason="/dp does not exist"), id="directory missing"
        ),
        pytest.param(
            triggered(kubelet=None), Wait(reason="there is no kubelet.sock"), id="no kubelet"
        ),
        pytest.param(triggered(kubelet=(2, 2, 2)), Register(), id="new kubelet.sock"),
        pytest.param(triggered(kubelet=(1, 2, 1)), Register(), id="the same inode, made later"),
        pytest.param(triggered(kubelet=(1, 1, 2)), Register(), id="the same inode and time"),
        pytest.param(triggered(departures=1), Register(), id="another instance left"),
        pytest.param(triggered(streams_lost=1), Register(), id="ListAndWatch ended"),
        pytest.param(
            triggered(options=PluginOptions(pre_start=True)), Register(), id="options changed"
        ),
        pytest.param(seen(bound=False), Bind(), id="own socket deleted"),
        pytest.param(
            triggered(kubelet=None, departures=1),
            Wait(reason="there is no kubelet.sock"),
            id="nobody to register with",
        ),
    ],
)
def test_what_calls_for_what(state: State, action: Action) -> None:
    assert decide(state, NOW, T) == action


def test_a_kubelet_that_never_calls_back_is_registered_with_again() -> None:
    state = accepted(seen(trigger=RegistrationTrigger((2, 2, 2)), listening=False), NOW)
    deadline = NOW + T.list_and_watch
    assert decide(state, NOW, T) == Wait(deadline)
    assert decide(state, deadline, T) == Register(NO_CALL)
    assert decide(seen(listening=True), deadline, T) == Wait()


def test_a_refusal_is_said_and_tried_again_ever_more_slowly() -> None:
    state, now, pauses = triggered(kubelet=(2, 2, 2)), NOW, []
    for _ in range(14):
        assert decide(state, now, T) == Register()
        state = refused(state, now, "version v1beta1 is not supported", T)
        wait = decide(state, now, T)
        assert isinstance(wait, Wait)
        assert wait.reason == "kubelet refused Register: version v1beta1 is not supported"
        assert wait.until is not None
        pauses.append(wait.until - now)
        now = wait.until
    assert pauses[0] == pytest.approx(T.refused_retry)
    assert pauses[-1] == pytest.approx(T.last_retry)
    assert all(later >= one - 1e-6 for one, later in pairwise(pauses))


def test_a_refused_socket_is_not_taken_for_registered() -> None:
    """Also where it was tried because the kubelet had not called."""
    state = refused(seen(listening=False), NOW, "already connected", T)
    assert decide(state, NOW + T.refused_retry, T) == Register()


def test_a_socket_that_is_there_before_its_kubelet_is_tried_at_once_and_silently() -> None:
    state, now = triggered(kubelet=(2, 2, 2)), NOW
    for _ in range(8):
        state = unreachable(state, now, "Connection refused")
        wait = decide(state, now, T)
        assert isinstance(wait, Wait)
        assert wait.reason == ""
        assert wait.until is not None
        now = wait.until
    assert now - NOW < 1.1
    state = unreachable(state, now, "Connection refused")
    assert decide(state, now, T).reason == "kubelet.sock: Connection refused"


def test_a_new_kubelet_does_not_wait_for_what_the_old_one_refused() -> None:
    state = triggered(kubelet=(2, 2, 2))
    for _ in range(9):
        state = refused(state, NOW, "no", T)
    state = triggered(state, kubelet=(3, 3, 3))
    assert decide(state, NOW, T) == Register()


def test_a_steady_kubelet_is_registered_with_at_once_a_flapping_one_ever_more_slowly() -> None:
    state, now, pauses = triggered(streams_lost=1), NOW, []
    for lost in range(2, 18):
        action = decide(state, now, T)
        due = action.until if isinstance(action, Wait) else now
        assert due is not None
        pauses.append(due - now)
        now = due
        state = triggered(accepted(state, now), now, streams_lost=lost)
    assert pauses[0] == 0, "the one before had held for long"
    assert all(later >= one - 1e-6 for one, later in pairwise(pauses))
    assert pauses[-1] == pytest.approx(T.last_retry)
    held = triggered(accepted(state, now), now + 2 * T.steady, streams_lost=99)
    assert decide(held, now + 2 * T.steady, T) == Register()


def test_a_directory_in_which_no_socket_can_be_made() -> None:
    state = not_listening(triggered(departures=1), NOW, "cannot listen on /dp/x: No space", T)
    assert decide(state, NOW, T) == Wait(NOW + T.refused_retry, "cannot listen on /dp/x: No space")
    state = not_listening(seen(bound=False), NOW, "cannot listen", T)
    assert decide(state, NOW + T.refused_retry, T) == Bind(), "the connection itself goes on"
