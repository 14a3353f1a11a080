"""Programs that measure the pipeline or inject faults into it."""
