"""What runs by itself, as the application's owner."""

from callboard import Schedule

SCHEDULES = [
    Schedule("heartbeat", "heartbeat", every_minutes=1, catch_up="none"),
    Schedule("digest", "dailyDigest", cron="0 9 * * *", timezone="America/New_York"),
]
