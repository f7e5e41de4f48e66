"""A page, served to this machine alone, on which a run's particles are looked at and selected."""
