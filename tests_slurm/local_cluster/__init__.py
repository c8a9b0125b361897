"""A real SLURM on this one machine, for tests and first tries: started, asked and stopped without root or systemd.

    with LocalCluster(directory) as cluster:
        subprocess.run(["squeue"], env=os.environ | cluster.environment())

From a shell: `python -m tests_slurm.local_cluster start`,
`eval "$(python -m tests_slurm.local_cluster env)"`, `... stop`.
"""

from tests_slurm.local_cluster.cluster import LocalCluster, default_directory
from tests_slurm.local_cluster.daemons import ClusterError
from tests_slurm.local_cluster.packages import INSTALL, missing

__all__ = ["INSTALL", "ClusterError", "LocalCluster", "default_directory", "missing"]
