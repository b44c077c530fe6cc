"""The beat: has each fire run once."""
