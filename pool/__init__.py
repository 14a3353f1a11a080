"""The embedded default: a personal HTCondor pool and an S3 server for one machine."""
