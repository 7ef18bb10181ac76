"""LUFFY and its relatives inside other trainers: teacher rows and our losses in TRL and verl."""
