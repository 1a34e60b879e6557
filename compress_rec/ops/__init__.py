"""The ops, one a file: the readable PyTorch function is the specification and the default kernel."""
