"""Read foreign data sets into problems and traces."""
