"""Looking at runs: the rerun recording."""
