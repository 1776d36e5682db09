"""Other ways to spread records, as small pure machines for the simulator's worlds.

They are yardsticks: each does what its protocol does with its published numbers, and no more than
measuring needs. None signs anything; what a node says of another is believed.
"""
