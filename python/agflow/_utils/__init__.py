"""Helpers that several rooms share: files, hooks, loaders, modes, devices, progress, ranks."""
