"""The parts of bucket.py, which is the only module that speaks S3."""
