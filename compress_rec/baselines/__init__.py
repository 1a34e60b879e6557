"""The simple rankers that every report holds a compressed model against, one a file."""
