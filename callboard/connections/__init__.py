"""Connections to Redis and MongoDB, and the heartbeats of processes."""
