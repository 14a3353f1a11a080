"""What bucket.py, the one module that speaks S3, is made of."""
