"""What a study is about: the embedded world or public data."""
