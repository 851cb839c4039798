"""The table of `devices`, grouped by card."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..devices.inventory import Device
from ..devices.state import NodeState

WIDTH_OF_A_PIPE = 200


def print_table(state: NodeState, console: Console | None = None) -> None:
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_A_PIPE)
    snapshot = state.snapshot
    if not snapshot.devices:
        console.print("no SPU on this node's PCI bus (vendor 0x1f36, a processing accelerator)")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("INDEX", "ID", "NUMA", "NODES", "MEMORY", "TEMP", "POWER", "UTIL", "HEALTH"):
        table.add_column(title, no_wrap=title != "HEALTH")
    # Cards in bus order; the chips of one card need not be neighbours on the bus.
    cards = list(dict.fromkeys(device.card for device in snapshot.devices))
    ordered = sorted(snapshot.devices, key=lambda device: cards.index(device.card))
    for _, group in groupby(ordered, key=lambda device: device.card):
        chips = list(group)
        table.add_row(f"[cyan]{escape(_card_title(chips[0]))}[/]")
        for device in chips:
            table.add_row(*_row(device, state))
    console.print(table)
    healthy = sum(health_status.healthy for health_status in state.health_statuses.values())
    smi = snapshot.smi
    console.print(
        f"{_count(len(snapshot.devices), 'device')} on {_count(len(cards), 'card')},"
        f" {healthy} healthy;"
        f" SOLA {escape(snapshot.sola_version or 'unknown')},"
        f" driver {escape(snapshot.driver_version or 'unknown')}"
        + ("" if smi.present else "; no mx-smi: sysfs alone")
        + (f"; mx-smi failed: {escape(smi.error)}" if smi.error else "")
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _card_title(device: Device) -> str:
    product = device.product or "SPU"
    return f"{product} {device.serial or device.card}"


def _row(device: Device, state: NodeState) -> list[str]:
    health_status = state.health_statuses[device.id]
    t = device.telemetry
    nodes = " ".join(node.host_path.removeprefix("/dev/") for node in device.function.nodes)
    memory = power = "-"
    if t is not None and t.memory_used_mib is not None and t.memory_total_mib is not None:
        memory = f"{t.memory_used_mib}/{t.memory_total_mib} MiB"
    if t is not None and t.power_draw_watts is not None:
        power = f"{t.power_draw_watts:g} W"
    return [
        f"  {device.index}",
        device.id,
        "-" if device.numa_node is None else str(device.numa_node),
        escape(nodes) or "-",
        memory,
        "-" if t is None or t.temperature_celsius is None else f"{t.temperature_celsius:g} C",
        power,
        "-" if t is None or t.utilization_percent is None else f"{t.utilization_percent:g} %",
        _health(health_status.healthy, [f"{r.code}: {r.message}" for r in health_status.reasons]),
    ]


def _health(healthy: bool, reasons: list[str]) -> str:
    colour = ("yellow" if reasons else "green") if healthy else "red"
    text = "\n".join(["healthy" if healthy else "unhealthy", *reasons])
    return f"[{colour}]{escape(text)}[/]"
