"""Edits to an item's text or a user's history, one a file."""
