"""HTCondor's bindings for Python, imported without their warnings."""

import warnings

with warnings.catch_warnings():
    # A machine may lack HTCondor. The first call says so in better words.
    warnings.filterwarnings("ignore", message=".*CONDOR_CONFIG")
    import classad2
    import htcondor2

__all__ = ["classad2", "htcondor2"]
