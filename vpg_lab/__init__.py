"""What stands around the algorithm of vpg_helpers.py.

poles plays many poles at once, companion is the whole VPG of lesson 8 on any vector environment, clinic has lesson 10's
patients, small_world lesson 4's world; pictures and widgets are what a reader sees and moves; learner keeps what a
learner writes, cells says what that needs of its cell, progress says where they stand; checks judge it. intervals and
refusals are small, and used by the others.
"""
