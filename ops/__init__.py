"""What an operator asks: each module answers one question with dataclasses."""
