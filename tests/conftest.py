"""Puts this folder on the import path, for `tiny_models` and `forests`. No torch: environments do without it."""
