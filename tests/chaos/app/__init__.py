"""The actions that the load calls. Each leaves what can be counted, under its caller's key."""
