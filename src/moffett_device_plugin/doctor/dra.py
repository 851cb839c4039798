"""The DRA driver: its socket, and the records of the claims that it prepared."""

from __future__ import annotations

from .context import Context
from .findings import Findings, count, fail, ok, skip, some, warn
from .kubelet import connect_error, sockets_in


def dra(context: Context) -> Findings:
    """With DRA, one driver listens where the kubelet looks for it."""
    if not context.dra:
        return skip("deviceApi is device-plugin")
    from ..dra.registrar import PREFIX

    registry = context.plugins_registry
    if not registry.is_dir():
        return fail(
            f"{registry} does not exist: the kubelet cannot find the driver",
            "mount the host's plugins_registry, below the kubelet's root directory, writable",
        )
    own = [path for path in sockets_in(registry) if path.name.startswith(PREFIX)]
    live = [path.name for path in own if connect_error(path) is None]
    if not live:
        return fail(
            f"no DRA driver listens in {registry}: pods of claims neither start nor end",
            "check that the DaemonSet's pod runs on this node (kubectl get pods -o wide) with"
            " the same --device-api; look at its log for dra-not-registered",
        )
    if len(live) > 1:
        remedy = "none during a rolling update; otherwise delete the extra DaemonSet"
        return warn(f"{len(live)} instances of the driver: {some(live)}", remedy)
    return _records(context, live[0])


def _records(context: Context, socket: str) -> Findings:
    from ..dra.records import RecordsError, RecordStore, read_boot_id

    try:
        records = RecordStore(context.cdi_dir, read_boot_id()).load()
    except RecordsError as error:
        return warn(f"the records of claims cannot be read: {error}", "run the doctor as root")
    if records.broken:
        return warn(
            "records of claims that cannot be read",
            "none: the claim, if there is one, is prepared anew; then delete the file",
            *records.broken,
        )
    return ok(f"{socket} listens; {count(len(records.by_uid), 'claim')} prepared")
