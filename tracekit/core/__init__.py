"""What every package uses: schemas, settings, run folders, ids and progress."""
