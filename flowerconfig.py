"""Flower's settings: `callboard flower` names this file to it."""

from callboard.log.lines import route_standard_logging

route_standard_logging()  # Flower's lines look like all others; --logging chooses their level

# Flower asks nobody for a password. To reach it from elsewhere, put a proxy that does in front,
# or set FLOWER_BASIC_AUTH and give --address.
address = "127.0.0.1"
port = 5555

read_only = True  # look, do not touch: no shutdown, no revoke, no pool changes

max_tasks = 10_000  # kept in memory
max_workers = 1_000
purge_offline_workers = 60  # seconds: every deploy brings workers under new names
