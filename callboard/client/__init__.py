"""Clients: in Python, and generated ones in TypeScript."""
