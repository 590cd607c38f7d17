"""Thin scripts for `evaluate.load`; one metric each, with nothing in them but its class."""
