"""The benchmarks of `make bench`: each figure beside the limit that it is judged by, in one run."""
