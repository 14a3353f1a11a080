"""Answer the questions of an operator: one module each, with dataclasses."""
