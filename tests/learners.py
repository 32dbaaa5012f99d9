"""Cells as learners write them: what tests run of a notebook with exercises."""

from catalogue import references

from vpg_lab import learner

SET_UP = """
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import vpg_helpers as vpg
from vpg_lab.checks import check
from vpg_lab.learner import go_on, with_my_functions
"""
POLICY = """def get_policy(model, observation):
    return Categorical(logits=model(torch.as_tensor(observation)))"""
MODEL = """def create_model(inputs, outputs, hidden_units=32):
    return nn.Sequential(nn.Linear(inputs, hidden_units), nn.ReLU(), nn.Linear(hidden_units, outputs))"""
ACTION = references()["get_action"]
FILE = learner.AGENT.file


def keep(name):
    return f"go_on({name!r}, globals(), '')"


KEPT = "yours from here on. Kept in my_agent.py."
