"""The compression methods, one a file; a module put here is found by itself."""
