"""Formats a variant can leave in, one a file."""
