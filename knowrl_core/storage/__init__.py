"""A run on disk: layout, schemas, commit, verification, lock, retention."""
