"""Who does a job, and where: worker processes of this machine, or the nodes of a cluster."""
