"""Who pays for an integration: ``developer`` (the default, the owner) or ``user`` (the caller)."""

INTEGRATIONS = {"openai": "developer"}
