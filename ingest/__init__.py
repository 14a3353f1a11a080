"""Ways in: from a bucket, a list or a folder to a manifest."""
