"""What stands around the algorithm of vpg_helpers.py, one room a thing."""
