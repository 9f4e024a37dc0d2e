"""Writes the report of a sweep: one HTML file that works offline, and the picture of the front."""
