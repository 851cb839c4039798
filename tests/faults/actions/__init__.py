"""All the faults, by name. To add one: write it in the file that fits, decorated with
`@action(NAME)`, and let it put the function that repairs it into `world.open` if it lasts."""

from . import (
    abuse,
    clock,
    configuration,
    exchange,
    hardware,
    limits,
    pods,
    process,
    tool,
)
from .registry import ACTIONS, Action

__all__ = ["ACTIONS", "Action"]
_ = (abuse, clock, configuration, exchange, hardware, limits, pods, process, tool)
