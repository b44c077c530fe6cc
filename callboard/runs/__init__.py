"""The run record: the truth about a run."""
