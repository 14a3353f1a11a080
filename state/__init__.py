"""What a launch and a run leave on disk, and who may write there."""
