"""The cards, their health by the rules of the daemon, and the versions of what drives them."""

from __future__ import annotations

from ..devices.cards import cards_of
from ..devices.health import cordon, flapping
from ..devices.health.evaluate import RECOVERING
from ..devices.health.reasons import Reason, Severity
from ..devices.health.rules import MINIMUM_SOLA, RULES
from ..hardware import sysfs
from ..hardware.mxsmi import version_of
from ..hardware.pci import BASE_CLASS_ACCELERATOR, VENDOR_MOFFETT, is_passthrough, sysfs_bus_id
from ..hardware.sola import SOLA
from ..hardware.types import Telemetry
from .context import Context
from .findings import Finding, Findings, count, fail, ok, skip, some, warn

#: How many devices a card of a product has, where the vendor says so.
DEVICES_OF_CARD = {"S30": 3}
#: The remedy for each reason: the rule's own.
REMEDIES = {rule.code: rule.remedy for rule in RULES} | {
    RECOVERING: "wait",
    cordon.CORDONED: cordon.REMEDY,
    flapping.FLAPPING: flapping.REMEDY,
}
#: What the health rules need of mx-smi, and what it is called.
_NEEDED = {"temperature_celsius": "temperature", "ecc_uncorrected_volatile": "memory errors"}
_SLOW = 2.0
_NOT_KNOWN = "no serials, temperatures, memory errors and firmware state"
_NO_TELEMETRY = (
    "look at the telemetry pod of this node: is it running, and does it find mx-smi (its log)?"
    " Without one, set telemetry.source (--telemetry-source) to mx-smi or none"
)
_HOST_ROOT = "in a container, mount the host's / and set SPU_HOST_ROOT to that directory"


def cards(context: Context) -> Findings:
    devices = context.devices
    if devices:
        products = ", ".join(dict.fromkeys(device.product or "SPU" for device in devices))
        spus, boards = count(len(devices), "SPU"), count(len(cards_of(devices)), "card")
        simulated = ", simulated" if context.simulated else ""
        return ok(f"{spus} on {boards} ({products}){simulated}")
    if context.state_error is not None:
        return fail(context.state_error, "look at the kernel's log (dmesg) for blocked tasks")
    if virtual := context.state.snapshot.virtual_functions:
        remedy = "set virtualFunctions (--virtual-functions) to use them"
        return fail("only virtual functions, which are left out", remedy, *virtual)
    return _nothing_found(context)


def _nothing_found(context: Context) -> Finding:
    folder = context.sys / "bus/pci/devices"
    try:
        functions = [path for path in sorted(folder.iterdir()) if sysfs_bus_id(path.name)]
    except OSError as error:
        return fail(
            f"the PCI bus cannot be read: {folder}: {error.strerror}",
            "mount the host's /sys (every ordinary container has it), or set --host-root to the"
            " directory that contains sys",
        )
    ours = [path for path in functions if sysfs.read_int(f"{path}/vendor") == VENDOR_MOFFETT]
    if ours:
        classes = sorted({f"{sysfs.read_int(f'{path}/class') or 0:06x}" for path in ours})
        return fail(
            f"vendor 0x1f36 is present with class {some(classes)}, not"
            f" {BASE_CLASS_ACCELERATOR:x}xxxx (a processing accelerator)",
            "run lspci -nn -d 1f36: on the host; a card in recovery or with older firmware can"
            " show another class",
            *(path.name for path in ours),
        )
    return fail(
        f"no function of vendor 0x1f36 among {count(len(functions), 'PCI function')}",
        "run lspci -d 1f36: on the host; if it lists none: check the card's slot and power,"
        " above-4G decoding in the BIOS, and PCI pass-through to this machine",
    )


def complete_cards(context: Context) -> Findings:
    """Devices that were never seen: of those that were, health knows when one is gone."""
    findings: list[Finding] = []
    for card in cards_of(context.devices):
        expected = max(DEVICES_OF_CARD.get(device.product or "", 0) for device in card.devices)
        if len(card.devices) < expected:
            text = f"{count(len(card.devices), 'device')} of {expected} on the bus"
            remedy = "reboot the card (mx-smi reboot -i N), then look at the kernel's log"
            findings.append(warn(text, remedy, card.devices[0].serial or card.id))
    return findings or ok("every card has all its devices")


def pcie_errors(context: Context) -> Findings:
    """PCIe advanced error reporting: what is no health rule."""
    counts = {device.id: device.function.aer for device in context.present}
    if all(aer.nonfatal is None and aer.correctable is None for aer in counts.values()):
        return skip("the kernel counts no PCIe errors here")
    remedy = "check slot and riser, and the kernel's log (dmesg | grep -i aer)"
    findings = [
        warn(f"{aer.nonfatal} uncorrected, non-fatal PCIe error(s) since it came up", remedy, id)
        for id, aer in counts.items()
        if aer.nonfatal
    ]
    corrected = sum(aer.correctable or 0 for aer in counts.values())
    return findings or ok(f"none uncorrected, {corrected} corrected")


def driver(context: Context) -> Findings:
    """What is bound to the devices; none, or a foreign one, is a matter of health."""
    bound = {d.function.driver for d in context.present if d.function.driver}
    drivers = sorted(name for name in bound if not is_passthrough(name))
    if not drivers:
        return skip("no driver is bound: see health")
    if len(drivers) > 1:
        text = f"devices have different drivers: {some(drivers)}"
        return warn(text, "bind SOLA's driver to all of them, or exclude the others")
    firmware = sorted({d.firmware_version for d in context.present if d.firmware_version})
    versions = (context.state.snapshot.driver_version, some(firmware))
    return ok(f"{drivers[0]} {versions[0] or '(version unknown)'}, firmware {versions[1] or '-'}")


def health(context: Context) -> Findings:
    """The daemon's own evaluation: each reason with its one remedy. What an operator has
    chosen is no failure."""
    findings = [
        (fail if _is_failure(reason) else warn)(
            f"{reason.code}: {reason.message}", REMEDIES.get(reason.code, ""), device.id
        )
        for device in context.devices
        for reason in context.state.health_statuses[device.id].reasons
    ]
    return findings or ok(f"{count(len(context.devices), 'device')} healthy")


def _is_failure(reason: Reason) -> bool:
    return reason.severity is Severity.UNHEALTHY and reason.code != cordon.CORDONED


def sola(context: Context) -> Findings:
    """The installed version, and whether mx-smi is of the same: not after half an upgrade."""
    snapshot = context.state.snapshot
    used, installed = snapshot.smi_sola_version, snapshot.installed_sola_version
    if snapshot.sola_version is None:
        if not snapshot.smi.present and context.hardware.smi != "":  # one cause, one line
            return skip(f"no mx-smi and no {SOLA}: see mx-smi")
        text = f"the version of SOLA is not known: no {SOLA}, and no version from mx-smi"
        return warn(text, f"install SOLA {MINIMUM_SOLA} or later; {_HOST_ROOT}")
    version, least = version_of(snapshot.sola_version), version_of(MINIMUM_SOLA)
    if version is None or least is None:
        text = f"{snapshot.sola_version!r} is not a version"
        return warn(text, f"check that it is {MINIMUM_SOLA} or later")
    if used and installed and version_of(used) != version_of(installed):
        return warn(
            f"mx-smi reports SOLA {used}, and {SOLA} links to {installed}",
            "complete the upgrade on the host: link, driver and mx-daemon of one version;"
            " then restart mx-daemon or the host",
        )
    if version < least:  # a health rule, with its own remedy
        return skip(f"SOLA {snapshot.sola_version} is older than {MINIMUM_SOLA}: see health")
    return ok(f"SOLA {snapshot.sola_version}, at least {MINIMUM_SOLA}")


def mx_smi(context: Context) -> Findings:
    smi, listed = context.state.snapshot.smi, [d for d in context.present if d.listed]
    source = context.hardware.smi_source
    if source == "none" and not context.simulated:
        return skip("not used (--telemetry-source none)")
    if source == "socket" and not smi.present and not context.simulated:
        text = f"no readings by {context.hardware.telemetry_socket}: {_NOT_KNOWN}"
        return warn(text, _NO_TELEMETRY)
    if context.hardware.smi == "" and not context.simulated:
        return skip("not used (--mx-smi none)")
    if not smi.present:
        path = context.on_host("/usr/bin/mx-smi")
        text = f"no {path}: {_NOT_KNOWN}"
        return warn(text, f"install SOLA on the host; {_HOST_ROOT}")
    if smi.error is not None:  # a health rule, with its own remedy
        return skip("mx-smi does not respond: see health")
    if smi.notes:
        text = (
            f"{count(len(listed), 'device')} of {len(context.present)}: mx-smi cannot reach others"
        )
        return warn(text, "replace the telemetry pod, or restart its container", *smi.notes)
    text = f"{count(len(listed), 'device')} in {context.smi_seconds * 1000:.0f} ms"
    known = [device.telemetry or Telemetry() for device in listed]
    missing = [
        name
        for field, name in _NEEDED.items()
        if known and all(getattr(telemetry, field) is None for telemetry in known)
    ]
    if smi.bad_rows:
        text += f", and {count(smi.bad_rows, 'row')} that cannot be read"
        return warn(text, "run mx-smi select on the host, and report what it prints")
    if missing:
        text = f"{text}, without {' and '.join(missing)}: health rules on these have no effect"
        refused = f" (it refuses {some(smi.refused)})" if smi.refused else ""
        return warn(text, f"upgrade SOLA: an older mx-smi does not have these fields{refused}")
    if context.smi_seconds > _SLOW:
        return warn(f"{text}: slow", "check the load of the host, and mx-daemon's log")
    return ok(text)
