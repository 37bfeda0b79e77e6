"""Charging sessions and electricity prices from files, and the split of their days.

Formats, rules and units: docs/data.md. No pandas; every failure is a one-line `UserError`.
"""

from qevgrid.envs.data.prices import PriceTable, load_prices, price_days
from qevgrid.envs.data.sessions import SessionTable, load_sessions, presence_by_hour
from qevgrid.envs.data.split import common_days, split_days

__all__ = [
    "PriceTable",
    "SessionTable",
    "common_days",
    "load_prices",
    "load_sessions",
    "presence_by_hour",
    "price_days",
    "split_days",
]
