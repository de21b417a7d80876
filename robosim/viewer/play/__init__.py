"""`robosim play`: a person drives the learned arm. The session here knows nothing of the page that shows it."""
