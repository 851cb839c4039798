"""What metrics and readiness see of the driver."""

from __future__ import annotations

from ..metrics.dra import DraView
from .mode import DraMode


def view_of(mode: DraMode) -> DraView:
    """The driver now. Reads memory only."""
    driver, publisher = mode.driver, mode.publisher
    stats = driver.stats
    references = {
        holder.reference for holders in driver.claims.value.values() for holder in holders
    }
    return DraView(
        on=mode.on,
        registered=bool(driver.registered.value),
        published=publisher.published.value,
        claims=len(references),
        prepared=stats.prepared,
        unprepared=stats.unprepared,
        unprepare_failures=stats.unprepare_failures,
        refused=dict(stats.refused),
        released=stats.swept,
        restored=stats.restored,
        writes=publisher.stats.writes + publisher.stats.deletions,
        write_failures=publisher.stats.failures,
        last_write=publisher.stats.last_success,
        prepare_seconds=stats.prepare_seconds,
        unprepare_seconds=stats.unprepare_seconds,
        users=mode.users(),
    )
