"""Prepares what users see of a sweep, a machine or a model: progress, plan, status, select, doctor, bench, export."""
