"""Commands, demo and benchmarks: the programs that use the packages."""
