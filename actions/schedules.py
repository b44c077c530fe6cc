"""What runs by itself, as the application's owner."""

from callboard import Schedule

SCHEDULES = [
    Schedule("heartbeat", "heartbeat", every_minutes=1),
]
