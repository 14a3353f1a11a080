"""Import HTCondor's bindings for Python without their warnings."""

import warnings

with warnings.catch_warnings():
    # A machine may have no HTCondor. The error of the first call says more.
    warnings.filterwarnings("ignore", message=".*CONDOR_CONFIG")
    import classad2
    import htcondor2

__all__ = ["classad2", "htcondor2"]
