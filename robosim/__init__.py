"""robosim."""
