"""The commands of cog_pipeline.py."""
