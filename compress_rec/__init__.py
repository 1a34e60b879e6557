"""Compress BERT recommenders and measure what each compression costs."""
