"""The forms a model can be written in for other programs, one a file; a module put here is found by itself."""
