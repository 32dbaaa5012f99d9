"""The jobs of make.py, a file each. They use vpg_lab.checks and vpg_lab.learner; nothing uses make.py."""
