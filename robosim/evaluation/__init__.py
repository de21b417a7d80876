"""Learned against physics: rollouts of one policy in both simulators, statistics, report."""
