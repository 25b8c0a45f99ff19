"""Many machines: engines in the processes of a Ray cluster, which fill one run directory together."""
