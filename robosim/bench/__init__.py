"""Benchmarks: `robosim bench <what>` measures one thing and prints JSON; a table for people goes to stderr.

A benchmark is a module with a configuration (`configs/bench_<what>.yaml`) and a function that the command line names.
"""
