"""One function for each rule. Each looks at one device and returns the sentence that
says what is wrong, or None. To add one: write it, list it in RULES, and describe it in
docs/health.md; docs/contributing/health-rule.md shows how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...hardware.mxsmi import version_of
from ...hardware.pci import is_passthrough
from ...hardware.types import Telemetry
from ..inventory import Device, Snapshot
from .reasons import Severity

MINIMUM_SOLA = "3.5.0"
#: Seconds for which a fatal PCIe error makes a device unhealthy.
AER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may look at besides the device. `active` is whether the rule
    already applied to this device at the last look (for hysteresis). `now` is
    in seconds of a clock that never goes back."""

    snapshot: Snapshot
    limits: tuple[float, ...]
    active: bool
    now: float


def _telemetry(device: Device) -> Telemetry:
    return device.telemetry or Telemetry()


Check = Callable[[Device, Context], str | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """`remedy` is what the doctor recommends. `limits` are the defaults of what
    `--health` can set; (): it can only be on, off or a warning. One limit: the largest
    value that is still fine. Two: the one to fail at, and the one to come back at."""

    code: str
    check: Check
    remedy: str
    severity: Severity = Severity.UNHEALTHY
    limits: tuple[float, ...] = ()
    #: Whether it says anything of a device that is not on the bus.
    of_absent: bool = False
    #: Whether its cause is the node's: then the log has it once, not for each device.
    of_node: bool = False


def bus_gone(device: Device, context: Context) -> str | None:
    if device.present:
        return None
    return f"{device.function.bus_id} left the PCI bus (a card that reboots comes back by itself)"


def not_responding(device: Device, context: Context) -> str | None:
    if not device.overdue:
        return None
    return "a read of its PCI configuration space has not ended: it is being reset, or hangs"


def config_unreadable(device: Device, context: Context) -> str | None:
    if device.function.responding is not False:
        return None
    return "its PCI configuration space reads all ones: the device does not answer on its link"


def no_driver(device: Device, context: Context) -> str | None:
    return None if device.function.driver else "no driver is bound to it"


def foreign_driver(device: Device, context: Context) -> str | None:
    driver = device.function.driver
    if not is_passthrough(driver):
        return None
    return f"{driver} is bound to it, which keeps it for a virtual machine or for user space"


def no_device_node(device: Device, context: Context) -> str | None:
    function = device.function
    if function.missing_nodes:
        return f"{', '.join(function.missing_nodes)} is missing from the host's /dev"
    if function.nodes or is_passthrough(function.driver):
        return None
    unmatched = context.snapshot.unmatched_nodes
    if function.driver is None:
        return "it has no device node: no driver is bound to it"
    if not unmatched:
        return (
            f"it has no device node: {function.driver} has made no character device below it; if"
            " the driver makes them without a parent device, set deviceNodes (--device-node)"
        )
    shown = f"{unmatched[0]} to {unmatched[-1]}" if len(unmatched) > 1 else unmatched[0]
    return (
        f"nothing shows which device node is its own: {len(unmatched)} ({shown}) have no"
        f" parent device, and {_without_node(context.snapshot)} devices have no node;"
        " set deviceNodes (--device-node)"
    )


def _without_node(snapshot: Snapshot) -> int:
    return sum(device.present and not device.function.nodes for device in snapshot.devices)


def firmware_not_loaded(device: Device, context: Context) -> str | None:
    if device.listed is not False:
        return None
    return "mx-smi works and does not list it: its firmware is not loaded"


def sola_too_old(device: Device, context: Context) -> str | None:
    version = context.snapshot.sola_version
    parsed, minimum = version_of(version), version_of(MINIMUM_SOLA)
    if parsed is None or minimum is None or parsed >= minimum:
        return None
    return f"SOLA {version} is installed; this plugin needs {MINIMUM_SOLA} or later"


def ecc_uncorrected(device: Device, context: Context) -> str | None:
    count = _telemetry(device).ecc_uncorrected_volatile
    if count is None or count <= context.limits[0]:
        return None
    return f"{count} uncorrected memory error(s) since it came up; a reboot of the card clears them"


def aer_fatal(device: Device, context: Context) -> str | None:
    """The kernel resets the link after such an error, and what ran on the device is lost.
    Whether the device has recovered shows in time: the reason holds for AER_SECONDS."""
    count, at = device.function.aer.fatal, device.fatal_at
    if count is None or count <= context.limits[0]:
        return None
    if at is None or context.now - at >= AER_SECONDS:
        return None
    return f"{count} fatal PCIe error(s) since it came up, the last less than an hour ago"


def over_temperature(device: Device, context: Context) -> str | None:
    # 0 is what a sensor reads for a moment now and then, not a temperature.
    celsius = _telemetry(device).temperature_celsius
    if not celsius:
        return None
    fail, recover = context.limits
    if celsius > fail:
        return f"{celsius:g} C is over the limit of {fail:g} C"
    if context.active and celsius > recover:
        return f"{celsius:g} C: it was over {fail:g} C and is not down to {recover:g} C yet"
    return None


def link_degraded(device: Device, context: Context) -> str | None:
    link = device.function.link
    wrong: list[str] = []
    if link.speed and link.max_speed and link.speed < link.max_speed:
        wrong.append(f"{link.speed:g} of {link.max_speed:g} GT/s")
    if link.width and link.max_width and link.width < link.max_width:
        wrong.append(f"x{link.width} of x{link.max_width}")
    return f"its PCIe link runs at {' and '.join(wrong)}" if wrong else None


def ecc_corrected(device: Device, context: Context) -> str | None:
    count = _telemetry(device).ecc_corrected_volatile
    if count is None or count <= context.limits[0]:
        return None
    return f"{count} corrected memory error(s) since it came up"


def mx_smi_unresponsive(device: Device, context: Context) -> str | None:
    error = context.snapshot.smi.error
    return None if error is None else f"mx-smi does not answer: {error}"


#: In the order in which reasons are given: the cause before what follows from it.
RULES: tuple[Rule, ...] = (
    Rule(
        "bus-gone", bus_gone,
        "nothing while a card reboots; else look at the kernel's log and the slot",
        of_absent=True,
    ),
    Rule(
        "not-responding", not_responding,
        "wait while the card is reset; else look at the kernel's log and reboot the node",
        of_absent=True,
    ),
    Rule("config-unreadable", config_unreadable, "reboot the card (mx-smi reboot -i N)"),
    Rule(
        "no-driver", no_driver,
        "load SOLA's driver on the host, look at the kernel's log (dmesg); after a kernel"
        " update, install SOLA again",
    ),
    Rule(
        "foreign-driver", foreign_driver,
        "bind the SPU's own driver, or leave the device out (exclude)",
    ),
    Rule(
        "no-device-node", no_device_node,
        "look at udev (udevadm trigger) and the kernel's log; set deviceNodes where the"
        " driver's nodes have no parent device",
    ),
    Rule(
        "firmware-not-loaded", firmware_not_loaded,
        "wait for mx-daemon (about 20 s after boot); then systemctl status mx-daemon and"
        " mx-mft status N on the host",
    ),
    Rule(
        "sola-too-old", sola_too_old, "upgrade the SOLA Toolkit", of_absent=True, of_node=True
    ),
    Rule(
        "ecc-uncorrected", ecc_uncorrected,
        "reboot the card; if it comes back, replace it", limits=(0,),
    ),
    Rule("aer-fatal", aer_fatal, "reboot the card; look at slot and riser", limits=(0,)),
    # The vendor gives no limit; 43 to 69 C is typical. See docs/health.md.
    Rule("over-temperature", over_temperature, "look at the airflow", limits=(90, 80)),
    Rule(
        "link-degraded", link_degraded, "reseat the card; check slot, riser and BIOS",
        Severity.WARNING,
    ),
    Rule("ecc-corrected", ecc_corrected, "watch it", Severity.WARNING, limits=(0,)),
    Rule(
        "mx-smi-unresponsive", mx_smi_unresponsive,
        "run mx-smi on the host; if it hangs there, look at dmesg and mx-daemon", Severity.WARNING,
        of_node=True,
    ),
)  # fmt: skip
#: The codes of the rules whose cause is the node's, and not one device's.
OF_NODE = frozenset(rule.code for rule in RULES if rule.of_node)
