"""Programs that measure the pipeline, or try to break it."""
