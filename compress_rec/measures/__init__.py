"""The measures, one a file; a module put here is found by itself."""
