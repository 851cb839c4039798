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
    ClearClient,
    CloseOlder,
    Observed,
    Register,
    RegistrationTimeouts,
    RegistrationTrigger,
    State,
    Wait,
    accepted,
    cleared,
    decide,
    not_listening,
    observed,
    older_closed,
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


# -- another instance ends ----------------------------------------------------------------


def departing(**changes: Any) -> State:
    """Another instance has removed its sockets, and we have registered for that."""
    leaving = {"leaving": True, "options_asked": True, **changes}
    trigger = replace(TRIGGER, departures=1)
    state = seen(trigger=trigger, **leaving)
    assert decide(state, NOW, T) == Register()
    return observed(accepted(state, NOW), replace(SERVED, trigger=trigger, **leaving), NOW, T)


def test_the_clients_entry_is_cleared_before_another_instance_ends_and_made_again_after() -> None:
    state = departing(older=1)
    trigger = state.observed.trigger
    assert decide(state, NOW, T) == ClearClient()
    state = cleared(state, NOW)
    assert decide(state, NOW, T) == Wait(NOW + T.departure), "for its end"
    ended = replace(SERVED, trigger=trigger, options_asked=True, older=1)
    state = observed(state, ended, NOW + 0.5, T)
    settled = NOW + 0.5 + T.settle
    # Its own older connection stays: a kubelet from 1.37 on may be calling through it.
    assert decide(state, NOW + 0.5, T) == Wait(settled), "the kubelet has to notice first"
    assert decide(state, settled, T) == Register()
    state = observed(accepted(state, settled), replace(ended, older=2), settled, T)
    assert decide(state, settled, T) == Wait()


def test_one_that_says_it_ends_and_does_not_is_not_waited_for() -> None:
    state = cleared(departing(), NOW)
    late = NOW + T.departure
    assert decide(state, late, T) == Register()
    assert decide(accepted(state, late), late, T) == Wait(), "nor handed over to again"


def test_a_second_that_leaves_meanwhile_is_handed_over_to_as_well() -> None:
    state = cleared(departing(), NOW)
    now_is = replace(state.observed, trigger=replace(TRIGGER, departures=2))
    state = observed(state, now_is, NOW, T)
    assert decide(state, NOW, T) == Register()
    assert decide(accepted(state, NOW), NOW, T) == ClearClient()


def test_kubelets_up_to_1_24_need_no_cleared_client() -> None:
    state = departing(options_asked=False, older=1)
    assert decide(state, NOW, T) == CloseOlder()
    assert decide(older_closed(state, NOW), NOW, T) == Wait()


def test_a_new_kubelet_ends_the_hand_over() -> None:
    state = triggered(cleared(departing(), NOW), kubelet=(2, 2, 2), departures=1)
    assert decide(state, NOW, T) == Register()
    assert accepted(state, NOW).cleared_at is None


def test_older_connections_do_not_add_up() -> None:
    assert decide(seen(older=2, options_asked=True), NOW, T) == Wait()
    state = seen(older=3, options_asked=True)
    assert decide(state, NOW, T) == ClearClient()
    state = cleared(state, NOW)
    assert decide(state, NOW, T) == CloseOlder(), "which costs nothing now"
    assert decide(observed(older_closed(state, NOW), seen().observed, NOW, T), NOW, T) == Wait(
        NOW + T.settle
    )
    assert decide(seen(older=3), NOW, T) == CloseOlder()
