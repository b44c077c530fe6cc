"""The tools: what a handler reads and writes records with."""
