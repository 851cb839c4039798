"""Why a pod gets the devices it gets: the second best set against every possible
choice, and what is said of the two."""

from __future__ import annotations

import json
from collections.abc import Collection
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moffett_device_plugin.__main__ import main
from moffett_device_plugin.allocation.placement import place
from moffett_device_plugin.allocation.topology import Level, Tree, distances
from moffett_device_plugin.commands.explanation import (
    Branch,
    Chip,
    ChipState,
    Explanation,
    explain,
    pods_to_end,
    runner_up,
    shortage,
)
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.hardware.simulated import write_control
from moffett_device_plugin.hardware.simulation import Faults
from moffett_device_plugin.resources.pools import (
    POLICIES,
    Policy,
    Resource,
    ResourcePool,
    Sharing,
    build_pools,
)
from moffett_device_plugin.resources.selector import Selector
from tests.support.values import ids_of, state_of
from tests.unit.test_placement import fragmentation, leaves, request_of, trees

IDS = ids_of("4xS30")
A, B, C, D = (tuple(IDS[i : i + 3]) for i in range(0, 12, 3))
CARD_A, CARD_B, CARD_C, CARD_D = (f"202324308010{n}" for n in (1, 2, 3, 4))


@settings(max_examples=200, deadline=None)
@given(st.data(), trees(), st.sampled_from(POLICIES))
def test_only_the_chosen_set_is_better_than_the_runner_up(
    data: st.DataObject, tree: Tree, policy: Policy
) -> None:
    available, must_include, size = request_of(data, tree)
    far = distances(tree)
    order = {name: place for place, name in enumerate(leaves(tree))}

    def rank(chosen: tuple[str, ...]) -> tuple[object, ...]:
        places = sorted(order[i] for i in chosen)
        if policy == "none":
            return (places,)
        distance = sum(far[frozenset(pair)] for pair in combinations(chosen, 2))
        sign = -1 if policy == "spread" else 1
        return sign * distance, fragmentation(tree, available - set(chosen)), places

    ranked = sorted(
        (c for c in combinations(sorted(available), size) if must_include <= set(c)), key=rank
    )
    best = place(tree, available, must_include, size, policy=policy)
    second = runner_up(tree, available, must_include, best, policy=policy)
    found = [sorted(placed.ids) for placed in (best, second) if placed is not None]
    assert found == [sorted(chosen) for chosen in ranked[:2]]


def why(
    available: Collection[str], size: int, policy: Policy = "compact"
) -> tuple[str | None, str | None]:
    second = explain(state_of("4xS30"), size, available=available, policy=policy).runner_up
    return (second.why.code, second.why.message) if second else (None, None)


@pytest.mark.parametrize(
    ("available", "size", "policy", "code", "message"),
    [
        # The second best takes one of the neighbouring card: 2 pairs at 6 for 2 at 1.
        ([*A, B[0]], 3, "compact", "distance", "farther apart by 10"),
        (
            [*A[:2], *D], 2, "compact", "fragmentation",
            f"equally near, but breaks card {CARD_D} (fragmentation by card: 4 against 0)",
        ),
        (
            [*B[1:], C[2]], 1, "compact", "fragmentation",
            f"equally near, but leaves card {CARD_C} broken, which the chosen set uses up"
            " (fragmentation by card: 4 against 2)",
        ),
        (
            [*A, *D], 2, "compact", "order",
            "equally near and no more fragmented, but later in bus order",
        ),
        (
            [A[0], C[0], D[0], D[1]], 2, "spread", "fragmentation",
            f"equally far apart, but leaves card {CARD_C} broken, which the chosen set uses up"
            " (fragmentation by card: 4 against 2)",
        ),
        (
            [A[0], D[0], D[1]], 2, "none", "order",
            "later in bus order, which is all that this policy looks at",
        ),
        (A, 3, "compact", None, None),
    ],
)  # fmt: skip
def test_the_runner_up_says_what_it_lost_by(
    available: list[str], size: int, policy: Policy, code: str | None, message: str | None
) -> None:
    assert why(available, size, policy) == (code, message)


def test_who_wants_devices_apart_is_told_how_much_nearer_the_others_are() -> None:
    told = explain(
        state_of("4xS30"), 2, available=[*A[:2], C[0]], must_include=[A[0]], policy="spread"
    )
    assert told.chosen.ids == (A[0], C[0])
    assert told.runner_up is not None
    assert told.runner_up.why.message == "nearer together by 19"


def test_the_distance_is_broken_down_by_what_a_pair_shares() -> None:
    chosen = explain(state_of("4xS30"), 4, available=[*A[:2], B[0], C[0]]).chosen
    counts = {level: (pairs.count, pairs.cost) for level, pairs in chosen.by_level.items()}
    assert counts == {Level.CARD: (1, 1), Level.ROOT_COMPLEX: (2, 6), Level.MACHINE: (3, 20)}
    assert chosen.score.distance == sum(p.distance for p in chosen.by_level.values()) == 73


def test_what_is_unhealthy_is_passed_over_as_the_daemon_does() -> None:
    state = state_of("4xS30", Faults().with_fault(A[0], "ecc"))
    told: Explanation = explain(state, 3)
    assert told.chosen.ids == B
    assert A[0] not in told.available


# -- the command ----------------------------------------------------------------------


@pytest.fixture
def control(tmp_path: Path) -> Path:
    return tmp_path / "simulation.json"


def run(control: Path, *flags: str, spec: str = "2xS30") -> int:
    # A cluster may be running on this machine.
    here = ["--simulate-control", str(control), "--pod-resources-socket", "none"]
    return main(["explain", "--simulate", spec, *here, *flags])


def test_the_tree_shows_what_became_of_every_device(
    control: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = ids_of("2xS30")
    write_control(control, Faults().with_fault(ids[1], "ecc"))
    managed = ",".join([ids[0], ids[1], ids[2], ids[4], ids[5]])
    assert run(control, "--size", "2", "--available", managed, "--must", ids[5]) == 0
    lines = capsys.readouterr().out.splitlines()
    state = {i: next(x for x in lines if f"── {i}" in x).split(i)[1].strip() for i in ids}
    assert state[ids[0]] == state[ids[2]] == "available"
    assert state[ids[1]].startswith("unhealthy: ecc-uncorrected (1 uncorrected memory error")
    assert state[ids[3]] == "not available"
    assert state[ids[4]] == "chosen"
    assert state[ids[5]] == "chosen, as it must be"
    text = "\n".join(lines)
    assert f"chosen     {ids[4]}, {ids[5]}\n           distance 1 = 1 pair on one card" in text
    assert f"runner-up  {ids[0]}, {ids[5]}\n           distance 20 = 1 pair across NUMA" in text
    assert "lost: farther apart by 19" in text
    assert "\x1b" not in text


def test_levels_that_group_nothing_share_a_line(
    control: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(control, "--size", "1", spec="2xS4") == 0
    lines = capsys.readouterr().out.splitlines()
    chips = [line for line in lines if "── " in line]
    assert len(chips) == 2
    for chip_id, line in zip(ids_of("2xS4"), chips, strict=True):
        assert "NUMA node" in line
        assert "card 20232430801" in line
        assert chip_id in line


def test_json_has_all_of_it(control: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = ids_of("2xS30")
    write_control(control, Faults().with_fault(ids[3], "hot"))
    assert run(control, "--size", "2", "--must", ids[1], "-o", "json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["size"], told["policy"]) == (2, "compact")
    assert told["available"] == [i for i in ids if i != ids[3]]
    assert told["must"] == [ids[1]]
    assert told["chosen"]["ids"] == ids[:2]
    assert told["chosen"]["distance"] == 1
    assert told["chosen"]["fragmentation"]["card"] == 4
    assert told["chosen"]["by_level"] == {"card": {"pairs": 1, "cost": 1, "distance": 1}}
    assert told["runner_up"]["ids"] == ids[1:3]
    assert told["runner_up"]["why"]["code"] == "order"
    found = [(node["name"], node["state"], node["must"]) for node in chips_of(told["tree"])]
    states = ["chosen", "chosen", "available", "unhealthy", "available", "available"]
    assert found == [(i, s, i == ids[1]) for i, s in zip(ids, states, strict=True)]
    assert told["tree"]["level"] == "machine"
    assert (told["tree"]["left"], told["tree"]["total"]) == (3, 6)
    unhealthy = next(node for node in chips_of(told["tree"]) if node["name"] == ids[3])
    assert [reason["code"] for reason in unhealthy["reasons"]] == ["over-temperature"]


def chips_of(branch: dict[str, Any]) -> list[dict[str, Any]]:
    if branch["level"] == "chip":
        return [branch]
    return [chip for child in branch["children"] for chip in chips_of(child)]


def test_a_request_with_one_answer_has_no_runner_up(
    control: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(control, "--size", "6", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["runner_up"] is None
    assert run(control, "--size", "6") == 0
    assert "no other set" in capsys.readouterr().out


def test_the_policy_is_the_daemons_own_unless_it_is_given(
    control: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPU_PLACEMENT", "spread")
    for flags, policy in (((), "spread"), (("--policy", "none"), "none")):
        assert run(control, "--size", "2", "-o", "json", *flags) == 0
        assert json.loads(capsys.readouterr().out)["policy"] == policy


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--size", "0"], 2, "--size: '0' is not valid: use a number of devices, 1 or more"),
        (["--size", "two"], 2, "--size: 'two' is not valid"),
        (
            ["--size", "1", "--available", "0000:36:00.0,0000:36:01.0"], 2,
            "--available: '0000:36:01.0' is not valid: the nearest on this node is 0000:36:00.0",
        ),
        (
            ["--size", "1", "--must", "b8:00.0"], 2,
            "--must: 'b8:00.0' is not valid: the nearest on this node is 0000:b8:00.0",
        ),
        (
            ["--size", "6"], 1,
            "6 devices were asked for and 5 are available;"
            " device 0000:38:00.0 is unhealthy: over-temperature",
        ),
        (
            ["--size", "2", "--must", "0000:38:00.0"], 1,
            "0000:38:00.0 must be in; device 0000:38:00.0 is unhealthy: over-temperature",
        ),
        (
            ["--size", "1", "--must", "0000:36:00.0,0000:37:00.0"], 1,
            "1 devices were asked for, but 2 must be in",
        ),
        (["--size", "1", "--available", ""], 1, "1 devices were asked for and 0 are available"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    flags: list[str], code: int, text: str, control: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_control(control, Faults().with_fault("0000:38:00.0", "hot"))
    assert run(control, *flags) == code
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert text in told.err


# -- a node with pods on it ---------------------------------------------------------------


def pool_of(resource: Resource, spec: str = "2xS30") -> tuple[NodeState, ResourcePool]:
    state = state_of(spec)
    pools, _ = build_pools(state, (resource,))
    return state, pools[0]


def test_what_pods_hold_is_not_chosen() -> None:
    state, pool = pool_of(Resource())
    ids = ids_of("2xS30")
    told = explain(state, 3, pool=pool, held={ids[1]: ("ml/train",)})
    assert told.chosen.ids == tuple(ids[3:])
    found = [leaf for card in _cards(told.tree) for leaf in card]
    held = next(leaf for leaf in found if leaf.state is ChipState.HELD)
    assert (held.id, held.holders) == (ids[1], ("ml/train",))


def _cards(branch: Branch) -> list[list[Chip]]:
    if branch.chip is not None:
        return [[branch.chip]]
    return [leaves for child in branch.children for leaves in _cards(child)]


def test_whole_cards_are_chosen_and_shown_as_cards() -> None:
    state, pool = pool_of(Resource(granularity="card"), "4xS30")
    told = explain(state, 2, pool=pool, held={pool.devices[0].id: ("ml/train",)})
    assert told.chosen.ids == (pool.devices[2].id, pool.devices[3].id)
    assert [leaf.id for card in _cards(told.tree) for leaf in card] == [d.id for d in pool.devices]


def test_devices_that_are_not_of_the_resource_are_not_chosen() -> None:
    ids = ids_of("2xS30")
    state, pool = pool_of(Resource(select=Selector(bus_ids=frozenset(ids[2:4]))))
    told = explain(state, 2, pool=pool)
    assert told.chosen.ids == tuple(ids[2:4])
    assert told.tree.total == 2


def test_a_shared_resource_gives_out_replicas_of_the_least_used_devices() -> None:
    state, pool = pool_of(Resource(sharing=Sharing(replicas=2)), "1xS30")
    ids = ids_of("1xS30")
    told = explain(state, 2, pool=pool, held={f"{ids[0]}::0": ("ml/a",)})
    assert told.chosen.ids == (f"{ids[1]}::0", f"{ids[2]}::0")
    assert told.runner_up is None
    assert len(told.available) == 5


def test_a_shortage_names_what_is_free_and_who_would_have_to_end() -> None:
    state, pool = pool_of(Resource())
    ids = ids_of("2xS30")
    held = {ids[0]: ("ml/one",), ids[4]: ("ml/two",), ids[5]: ("ml/two",)}
    found = shortage(state, pool, 5, held)
    assert (found.free_count, found.enough, found.to_end) == (3, True, ("ml/two",))
    assert sum(found.free.values()) == 3
    assert not shortage(state, pool, 7, held).enough


def test_a_device_is_free_when_the_last_pod_that_holds_it_has_ended() -> None:
    """A card whose chips two pods have as chips."""
    assert pods_to_end({"card-a": ("ml/one", "ml/two"), "card-b": ("ml/two",)}, 2) == (
        "ml/one",
        "ml/two",
    )
    assert pods_to_end({"card-a": ("ml/one", "ml/two"), "card-b": ("ml/two",)}, 1) == ("ml/two",)


@given(
    st.dictionaries(
        st.integers(0, 7).map(str), st.sets(st.sampled_from("abcde"), min_size=1).map(sorted)
    ),
    st.integers(-1, 8),
)
def test_the_pods_to_end_are_sufficient_and_each_is_needed(
    held: dict[str, list[str]], missing: int
) -> None:
    assume(missing <= len(held))

    def freed(ended: Collection[str]) -> int:
        return sum(set(who) <= set(ended) for who in held.values())

    ended = pods_to_end(held, missing)
    assert freed(ended) >= missing
    for pod in ended:
        assert freed(set(ended) - {pod}) < missing


@pytest.mark.parametrize("size", [6, 7])
def test_why_a_pod_is_pending_is_said_in_json_and_in_text(
    size: int, control: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_control(control, Faults().with_fault("0000:38:00.0", "hot"))
    assert run(control, "--size", str(size)) == 1
    text = capsys.readouterr().out
    assert "free       5 of moffett.ai/spu: 2 on card" in text
    assert "unhealthy  0000:38:00.0: over-temperature" in text
    assert "only 5 here are healthy" in text
    assert run(control, "--size", str(size), "-o", "json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["free"]["count"], told["pods_to_end"]) == (5, None)


CONFIGURED = """
version: v1
resources:
- {name: a.io/one, select: {busId: [0000:36:00.0, 0000:37:00.0]}}
- {name: a.io/rest, exclude: {busId: [0000:36:00.0, 0000:37:00.0]}}
"""


def test_a_node_of_several_resources_is_asked_for_one_of_them(
    control: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(CONFIGURED)
    command = ("--size", "2", "--config", str(file), "-o", "json")
    assert run(control, *command) == 2
    assert "use one of a.io/one, a.io/rest" in capsys.readouterr().err
    assert run(control, *command, "--resource", "a.io/rest") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["resource"] == "a.io/rest"
    assert len(told["available"]) == 4
