"""Files that run the same command elsewhere: a batch script of Slurm, a task of SkyPilot, a job of Azure ML."""
