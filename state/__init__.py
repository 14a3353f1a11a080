"""The files of launches and runs on disk, and who may write there."""
