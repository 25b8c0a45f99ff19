"""A plan made and carried out: profiling, planning, running, and what is decided on the way."""
