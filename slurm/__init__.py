"""The cluster: the same runs submitted to SLURM by submitit, preempted, requeued, watched. See docs/slurm.md."""
