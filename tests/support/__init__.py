"""What tests, the lab and each other need: archives, servers with faults, rasters."""
