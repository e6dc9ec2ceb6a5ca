"""What the Linux kernel offers: cgroups, mounts, launch plans, processes, clocks. Standard library only."""
