"""When to register with the kubelet: a pure state machine.

`decide` says what to do next; `accepted`, `refused`, `unreachable`, `not_listening`,
`cleared` and `older_closed` are the states after it was done. The loop around it is in
plugin.py.

Kubelets 1.25 to 1.36 keep one client for each resource name, and when any connection of a
plugin ends they hang up on that client, whosever it is. Where there is none they do nothing,
and a registration whose GetDevicePluginOptions answers an error leaves none. So before a
connection is closed on purpose, such a registration is made (ClearClient); and once no
connection is about to end, the plugin registers again, so that its own end is noticed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..api import KUBELET_SOCKET
from ..resources.plugin_config import PluginOptions

NO_CALL = "kubelet accepted Register but did not call ListAndWatch"
#: Attempts on a socket that nobody listens on before the log says so: kubelet.sock exists
#: for a moment before its kubelet listens.
QUIET_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class RegistrationTimeouts:
    """How long to wait for what, in seconds.

    `first_retry` doubles up to `last_retry`. `refused_retry` is the least after a kubelet
    that answered an error. `list_and_watch`: how long after an accepted registration the
    kubelet may take to call ListAndWatch. `steady`: a registration that held so long does
    not count as a failure. `handover`: how long an instance that ends goes on serving
    after it removed its sockets; `departure`: how long another waits for that end at most.
    `settle`: from the end of a connection to the next registration, so that the kubelet has
    noticed the one before it gets the other. `withdrawal`: from the empty list of a
    resource that is no longer advertised to the end of its plugin.
    """

    first_retry: float = 0.002
    refused_retry: float = 1.0
    last_retry: float = 10.0
    list_and_watch: float = 12.0
    steady: float = 1.0
    handover: float = 0.5
    departure: float = 5.0
    settle: float = 0.1
    withdrawal: float = 0.2


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double with each failure. `since` is when the last attempt ended,
    `least` what is waited after it in any case."""

    failures: int = 0
    since: float = float("-inf")
    least: float = 0.0

    def due(self, timeouts: RegistrationTimeouts) -> float:
        """When the next attempt may be made, on the clock of `since`."""
        if not self.failures:
            return self.since
        doubled = timeouts.first_retry * float(1 << min(self.failures, 30))
        return self.since + max(self.least, min(doubled, timeouts.last_retry))


@dataclass(frozen=True, slots=True)
class RegistrationTrigger:
    """What calls for a registration: a change in any of these."""

    kubelet: tuple[int, int, int] | None = None  # a new kubelet.sock; None: there is none
    departures: int = 0  # of other instances: the kubelet may take their end for ours
    streams_lost: int = 0  # ListAndWatch calls of the newest socket that ended
    options: PluginOptions = field(default_factory=PluginOptions)  # what the kubelet calls


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is now.

    `bound`: the newest socket is in the directory and is ours. `listening`: the kubelet has
    called ListAndWatch through it. `options_asked`: and GetDevicePluginOptions, as kubelets
    do from 1.25 on. `older`: sockets before it that a kubelet still listens through.
    `leaving`: another instance has removed its sockets, and its connections will end.
    """

    trigger: RegistrationTrigger = RegistrationTrigger()
    directory: str = ""  # the path; empty while it exists
    bound: bool = False
    listening: bool = False
    options_asked: bool = False
    older: int = 0
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """What there is, and what came of the attempts so far.

    `reason`: why the last one did not succeed. `cleared_at`: since when the kubelet has no
    client to hang up on; None while it has. `quiet_since`: since when, as far as is known,
    no connection ended. `handed_over`: the departures that need no ClearClient any more.
    """

    observed: Observed = Observed()
    backoff: Backoff = Backoff()
    registered_for: RegistrationTrigger | None = None
    registered_at: float = float("-inf")
    reason: str = ""
    cleared_at: float | None = None
    quiet_since: float = float("-inf")
    handed_over: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until something changes, or until this time. `reason` is for the log:
    why the kubelet does not have us."""

    until: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Bind:
    """The socket was removed from the directory: make it again."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Register:
    """Register a socket that no kubelet has been told of."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class ClearClient:
    """Make a registration whose GetDevicePluginOptions answers an error."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class CloseOlder:
    """Close the connections of the sockets before the newest."""

    reason: str = ""


Action = Wait | Bind | Register | ClearClient | CloseOlder

#: Older sockets that stay open. To close one takes two more registrations; and a kubelet from
#: 1.37 on, when a connection ends, takes any of the others for its calls: until it has taken
#: another, a call to one that was just closed fails its pod.
KEPT = 2


def decide(state: State, now: float, timeouts: RegistrationTimeouts) -> Action:
    """The next action. The same state and time give the same action."""
    now_is = state.observed
    if now_is.directory:
        return Wait(reason=f"{now_is.directory} does not exist")
    if now_is.trigger.kubelet is None:
        return Wait(reason=f"there is no {KUBELET_SOCKET}")
    due = state.backoff.due(timeouts)
    if state.registered_for != now_is.trigger:
        return Register() if now >= due else Wait(due, state.reason)
    if not now_is.bound:
        return Bind() if now >= due else Wait(due, state.reason)
    if now_is.listening:
        return _hand_over(state, now, timeouts)
    deadline = state.registered_at + timeouts.list_and_watch
    return Register(NO_CALL) if now >= deadline else Wait(deadline)


def _hand_over(state: State, now: float, timeouts: RegistrationTimeouts) -> Action:
    """Before connections end, and after."""
    now_is = state.observed
    if state.cleared_at is None:
        departs = now_is.leaving and state.handed_over != now_is.trigger.departures
        if not (departs or now_is.older > KEPT):
            return Wait()
        # Up to 1.24 a connection's end means nothing unless it is the newest's.
        return ClearClient() if now_is.options_asked else CloseOlder()
    departed_by = state.cleared_at + timeouts.departure
    if now_is.leaving and now < departed_by:
        return Wait(departed_by)
    if now_is.older > KEPT:
        return CloseOlder()
    settled = state.quiet_since + timeouts.settle
    return Register() if now >= settled else Wait(settled)


def observed(state: State, now_is: Observed, now: float, timeouts: RegistrationTimeouts) -> State:
    """A new kubelet owes nothing for what the one before it refused, and a registration
    that held for long ends the growing pauses."""
    new_kubelet = now_is.trigger.kubelet != state.observed.trigger.kubelet
    held = state.registered_for == state.observed.trigger != now_is.trigger
    if new_kubelet or (held and now - state.registered_at > timeouts.steady):
        state = replace(state, backoff=Backoff(), reason="")
    if state.observed.leaving and not now_is.leaving:
        state = replace(state, quiet_since=now)
    return replace(state, observed=now_is)


def accepted(state: State, now: float) -> State:
    """One that was lost counts as a failure unless it had held: a kubelet that hangs up each
    time is registered with ever more slowly."""
    before, trigger = state.registered_for, state.observed.trigger
    lost = before is None or before.streams_lost != trigger.streams_lost
    return replace(
        state,
        backoff=Backoff(state.backoff.failures + lost, now),
        registered_for=trigger,
        registered_at=now,
        reason="",
        cleared_at=None,
    )


def cleared(state: State, now: float) -> State:
    """The kubelet refused the registration that was made to be refused."""
    departures = state.observed.trigger.departures
    return replace(state, cleared_at=now, quiet_since=now, handed_over=departures)


def older_closed(state: State, now: float) -> State:
    departures = state.observed.trigger.departures
    return replace(state, quiet_since=now, handed_over=departures)


def refused(state: State, now: float, why: str, timeouts: RegistrationTimeouts) -> State:
    """The kubelet answered an error."""
    failed = _failed(state, now, f"kubelet refused Register: {why}", timeouts.refused_retry)
    return replace(failed, registered_for=None)


def unreachable(state: State, now: float, why: str) -> State:
    """Nobody answered at kubelet.sock."""
    logged = state.backoff.failures >= QUIET_ATTEMPTS
    failed = _failed(state, now, f"{KUBELET_SOCKET}: {why}" if logged else "")
    return replace(failed, registered_for=None)


def not_listening(state: State, now: float, why: str, timeouts: RegistrationTimeouts) -> State:
    """There is no socket of our own to register."""
    return _failed(state, now, why, timeouts.refused_retry)


def _failed(state: State, now: float, reason: str, least: float = 0.0) -> State:
    backoff = Backoff(state.backoff.failures + 1, now, least)
    return replace(state, backoff=backoff, reason=reason)
