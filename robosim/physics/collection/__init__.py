"""Episodes recorded by the thousand: on all cores or a Ray cluster, into one dataset."""
