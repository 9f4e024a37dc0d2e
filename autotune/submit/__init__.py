"""Writes files that run a sweep elsewhere: a batch script of Slurm, a task of SkyPilot, a job of Azure ML."""
