"""Labelled text: from files to splits."""
