"""The PCI bus: are the cards there, do they answer, and how well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..devices.cards import cards_of
from ..devices.inventory import Device
from ..hardware import sysfs
from ..hardware.pci import BASE_CLASS_ACCELERATOR, VENDOR_MOFFETT, sysfs_bus_id
from ..hardware.types import Link
from .context import Context
from .findings import Finding, count, fail, ok, skip, some, warn

#: How many devices a card of a product has, where the vendor says so.
DEVICES_OF_CARD = {"S30": 3}
NO_CARDS = "there is no card to look at"


def cards(context: Context) -> Iterable[Finding]:
    devices = context.state.snapshot.devices
    if devices:
        products = ", ".join(dict.fromkeys(device.product or "SPU" for device in devices))
        found = (
            f"{count(len(devices), 'SPU')} on {count(len(cards_of(devices)), 'card')} ({products})"
        )
        return [ok(found + (", simulated" if context.simulated else ""))]
    if context.state_error is not None:
        return [fail(context.state_error, "look at the kernel's log (dmesg) for blocked tasks")]
    return [_nothing_found(context)]


def _nothing_found(context: Context) -> Finding:
    folder = context.sys / "bus/pci/devices"
    try:
        functions = sorted(name for name in map(_name, folder.iterdir()) if sysfs_bus_id(name))
    except OSError as error:
        return fail(
            f"the PCI bus cannot be read: {folder}: {error.strerror}",
            "give this container the host's /sys (every ordinary container has it), or name the"
            " directory that has sys in it with --host-root",
        )
    vendors = {name: sysfs.read_int(f"{folder}/{name}/vendor") for name in functions}
    ours = [name for name, vendor in vendors.items() if vendor == VENDOR_MOFFETT]
    if ours:
        classes = {f"{sysfs.read_int(f'{folder}/{name}/class') or 0:06x}" for name in ours}
        return fail(
            f"{some(ours)} of vendor 0x1f36 is there, with class {some(sorted(classes))}, not"
            f" {BASE_CLASS_ACCELERATOR:x}xxxx (a processing accelerator)",
            "look at lspci -nn -d 1f36: on the host; a card in recovery or an older firmware can"
            " show another class",
        )
    return fail(
        f"no function of vendor 0x1f36 among {count(len(functions), 'PCI function')}",
        "run lspci -d 1f36: on the host; if it shows none either: seat and power of the card,"
        " above-4G decoding in the BIOS, whether the device is passed through to this machine",
    )


def complete_cards(context: Context) -> Iterable[Finding]:
    """All the chips of a card are there, or some have left."""
    whole = [card for card in cards_of(context.state.snapshot.devices) if card.devices]
    if not whole:
        return [skip(NO_CARDS)]
    findings: list[Finding] = []
    for card in whole:
        present = [device for device in card.devices if device.present]
        expected = max((DEVICES_OF_CARD.get(d.product or "", 0) for d in card.devices), default=0)
        expected = max(expected, len(card.devices))
        if len(present) < expected:
            findings.append(
                warn(
                    f"{count(len(present), 'device')} of {expected}: the others are not on the bus",
                    "if the card is not rebooting now, reboot it (mx-smi reboot -i N); then look"
                    " at the kernel's log",
                    card.devices[0].serial or card.id,
                )
            )
    return findings or [ok("every card shows all its devices")]


def answers(context: Context) -> Iterable[Finding]:
    """Configuration space: all ones is what a dead link reads as."""
    present = list(_present(context))
    if not present:
        return [skip(NO_CARDS)]
    dead = [
        fail(
            "its PCI configuration space reads all ones: it fell off its link",
            "reboot the card (mx-smi reboot -i N); if it comes back so, reseat it",
            device.id,
        )
        for device in present
        if not device.function.responding
    ]
    return dead or [ok(f"{count(len(present), 'device')} answer on the bus")]


def links(context: Context) -> Iterable[Finding]:
    present = list(_present(context))
    if not present:
        return [skip(NO_CARDS)]
    degraded: list[Finding] = []
    unknown = 0
    for device in present:
        link = device.function.link
        if None in (link.speed, link.max_speed, link.width, link.max_width):
            unknown += 1
        elif _below(link):
            degraded.append(
                warn(
                    f"{_link(link)} where {link.max_speed:g} GT/s x{link.max_width} is possible",
                    "reboot the card; then reseat it, and look at slot, riser and BIOS settings",
                    device.id,
                )
            )
    if degraded:
        return degraded
    if unknown == len(present):
        return [skip("the kernel does not tell the speed of these links")]
    speeds = sorted({_link(device.function.link) for device in present})
    return [ok(f"{count(len(present) - unknown, 'link')} as fast as they can be: {some(speeds)}")]


def errors(context: Context) -> Iterable[Finding]:
    """PCIe advanced error reporting."""
    present = list(_present(context))
    if not present:
        return [skip(NO_CARDS)]
    findings: list[Finding] = []
    for device in present:
        aer = device.function.aer
        seat = "look at slot, riser and the kernel's log (dmesg | grep -i aer)"
        if aer.fatal:
            text = f"{aer.fatal} fatal PCIe error(s) since it came up"
            findings.append(fail(text, f"reboot the card; {seat}", device.id))
        elif aer.nonfatal:
            text = f"{aer.nonfatal} non-fatal uncorrected PCIe error(s) since it came up"
            findings.append(warn(text, seat, device.id))
        elif aer.correctable:
            text = f"{aer.correctable} corrected PCIe error(s) since it came up"
            findings.append(warn(text, f"nothing while it is few; else {seat}", device.id))
    if findings:
        return findings
    if all(device.function.aer.fatal is None for device in present):
        return [skip("the kernel counts no PCIe errors here (no advanced error reporting)")]
    return [ok("no PCIe errors counted")]


def _present(context: Context) -> Iterator[Device]:
    return (device for device in context.state.snapshot.devices if device.present)


def _below(link: Link) -> bool:
    return (link.speed or 0) < (link.max_speed or 0) or (link.width or 0) < (link.max_width or 0)


def _link(link: Link) -> str:
    if link.speed is None or link.width is None:
        return "not told"
    return f"{link.speed:g} GT/s x{link.width}"


def _name(path: object) -> str:
    return str(path).rsplit("/", 1)[-1]
