"""What all measurements share: candidates, workloads, clocks, memory and the machine."""
