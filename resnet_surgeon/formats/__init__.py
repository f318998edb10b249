"""Bytes: one file for each container."""
