"""Ways of explaining a score, one a file."""
