"""A worker's hold on its runs."""
