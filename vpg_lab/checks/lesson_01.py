"""Lesson 1: how many parameters there are, and the model."""

import numpy as np
import torch
from torch import Tensor, nn

from vpg_lab.checks.expect import case, expect_reference, expect_shape, expect_type, flatten, is_close, mistakes
from vpg_lab.checks.verdicts import claim


@mistakes("count_parameters")
def counts_gone_wrong(inputs, hidden_units, outputs):
    products = inputs * hidden_units + hidden_units * outputs
    return {
        "the biases are missing": products,
        "the hidden units have biases too": products + outputs,
        "the outputs have biases too": products + hidden_units,
        "hidden units and outputs have biases, inputs have none": products + inputs + hidden_units + outputs,
        "a layer has a bias for each of its outputs, not one in all": products + 2,
        "the layers follow each other, so their counts add up": inputs * hidden_units * outputs,
        "a layer has a bias for each of its outputs, not of its inputs": products + inputs + hidden_units,
        "that is our network's, whatever is asked; use the arguments": 226,
    }


@claim("count_parameters")
def count_is_pytorch_s_own(count_parameters):
    expect_type(count_parameters(4, 32, 2), (int, np.integer), "a whole number")
    sizes = [(4, 32, 2), (1, 1, 1), (7, 32, 9), (4, 50, 2), *np.random.randint(1, 99, (5, 3)).tolist()]
    cases = [case(f"for {inputs}, {units}, {outputs}", inputs, units, outputs) for inputs, units, outputs in sizes]
    expect_reference(count_parameters, lambda i, h, o: count(two_layers(i, o, h)), counts_gone_wrong, cases)


def count(model):
    expect_type(model, nn.Module, "an nn.Module")
    return sum(parameter.numel() for parameter in model.parameters())


def two_layers(inputs, outputs, hidden_units=32):
    return nn.Sequential(nn.Linear(inputs, hidden_units), nn.ReLU(), nn.Linear(hidden_units, outputs))


@mistakes("create_model")
def layers_gone_wrong(*sizes):
    first, relu, last = two_layers(*sizes)
    layers = {
        "it is a straight line in its input: is the ReLU missing?": [first, last],
        "the ReLU belongs between the linear layers, not behind them": [first, last, relu],
        "no logit is ever negative: leave the ReLU at the end out": [first, relu, last, relu],
        "the logits of a row sum to 1: leave the softmax out": [first, relu, last, nn.Softmax(dim=-1)],
        "no logit is ever positive: leave the log-softmax out": [first, relu, last, nn.LogSoftmax(dim=-1)],
        "every logit lies between -1 and 1: leave the tanh out": [first, relu, last, nn.Tanh()],
        "the hidden units are max(h, 0), not squashed by tanh": [first, nn.Tanh(), last],
        "the hidden units are max(h, 0), not squashed by a sigmoid": [first, nn.Sigmoid(), last],
    }
    return {sentence: nn.Sequential(*each) for sentence, each in layers.items()}


@mistakes("create_model")
def sizes_gone_wrong(inputs, outputs, units=32):
    first, relu, last = two_layers(inputs, outputs, units)
    return {
        "the layers are not registered: nn.Sequential does it, and attributes of an nn.Module": nn.Identity(),
        "there is no hidden layer": nn.Linear(inputs, outputs),
        "there are two hidden layers": nn.Sequential(first, nn.Linear(units, units), last),
        "the biases are missing": nn.Sequential(nn.Linear(inputs, units, False), nn.Linear(units, outputs, False)),
        "hidden_units is not used": two_layers(inputs, outputs, 32),
        "our network's sizes are written in; use the arguments": two_layers(4, 2, 32),
        "CartPole's sizes are written in; use the arguments": two_layers(4, 2, units),
        "the number of observation features is written in; use the argument": two_layers(4, outputs, units),
        "the number of actions is written in; use the argument": two_layers(inputs, 2, units),
        "observations go in and logits come out: they have changed places": two_layers(outputs, inputs, units),
        "the last layer takes what the hidden layer gives": nn.Sequential(first, relu, nn.Linear(inputs, outputs)),
        "leave the normalization out": nn.Sequential(first, nn.BatchNorm1d(units), relu, last),
    }


@claim("create_model", "turns observations into logits")
def model_turns_observations_into_logits(create_model):
    model, batch = create_model(4, 2), torch.randn(100, 4)
    expect_type(model, nn.Module, "an nn.Module")
    assert not any(isinstance(each, nn.Flatten) for each in model.modules()), "a batch keeps its shape: no nn.Flatten"
    try:
        logits = model.train()(batch)  # where dropout drops
    except RuntimeError:  # layers that do not fit: their sizes may say why
        model_has_the_sizes_it_is_asked_for(create_model)
        raise
    expect_type(logits, Tensor, "logits in a tensor")
    mixed = "a row gets other logits in another call: no dropout, no softmax over the batch, no batch normalization"
    for shape in [(100,), (50,), (), (1,), (20, 5), (100, 1, 1)]:
        rows = torch.Size(shape).numel()
        got = model(batch[:rows].reshape(*shape, 4))
        said = f"observations of shape {(*shape, 4)} gave logits of shape {{}}, expected {(*shape, 2)}: keep the shape"
        expect_shape(got, (*shape, 2), said)
        assert is_close(got.reshape(-1, 2), logits[:rows], absolute=1e-5), mixed
    parameters = [*model.parameters()]
    if not parameters:
        model_has_the_sizes_it_is_asked_for(create_model)
    assert all(each.requires_grad for each in parameters), "some of its parameters are frozen: no optimizer moves them"
    gradients = torch.autograd.grad(logits.sum(), parameters, allow_unused=True) if logits.requires_grad else [None]
    lost = "the logits do not carry the gradient of all parameters: no detach, no_grad or .data, and no unused layer"
    assert all(gradient is not None for gradient in gradients), lost
    alike = "its hidden units begin alike, and alike they learn alike: draw their first weights at random"
    assert all(len(each.unique()) > 1 for each in parameters if sorted(each.shape) == [4, 32]), alike
    if sorted(sorted(each.shape) for each in create_model(3, 7, 5).parameters()) == [[3, 5], [5], [5, 7], [7]]:
        expect_two_layers(create_model)  # the next claim counts them, and parameters in other shapes may be right, too


def expect_two_layers(create_model):
    numbers, observations = torch.randn(35), torch.randn(30, 3)

    def ask(function, scale):
        model = function(3, 7, 5)
        with torch.no_grad():
            for parameter in model.parameters():  # its sizes tell which one it is, whichever comes first
                drawn = numbers[: parameter.numel()].reshape(sorted(parameter.shape))
                parameter.copy_(drawn if drawn.shape == parameter.shape else drawn.T)
        return model(scale * observations)

    cases = [case("create_model(3, 7, 5) with random parameters:", scale) for scale in (1, 1e3)]
    hint = "with its own parameters it should be max(W1 s + b1, 0) W2 + b2, and nothing else may happen on the way"
    expect_reference(create_model, two_layers, layers_gone_wrong, cases, ask, hint=hint, tolerance=1e-5)


@claim("create_model", "has the sizes it is asked for")
def model_has_the_sizes_it_is_asked_for(create_model):
    sizes = [(4, 2), (6, 3), (3, 5, 7), (2, 2, 1), *map(tuple, np.random.randint(1, 70, (4, 3)).tolist())]
    cases = [case(f"the parameters of create_model{each}:", *each) for each in sizes]
    hint = "a layer with a inputs and b outputs has (a + 1) · b of them"
    expect_reference(create_model, two_layers, sizes_gone_wrong, cases, lambda f, *each: count(f(*each)), hint=hint)
    with torch.random.fork_rng(devices=[]):
        first, again = (flatten(torch.manual_seed(1) and create_model(4, 2).parameters()) for _ in range(2))
    assert torch.equal(first, again), "torch.manual_seed should decide the first parameters: draw them with torch"
    alike = "two calls gave the same network: draw a new one in every call, and seed nothing"
    assert not torch.equal(first, flatten(create_model(4, 2).parameters())), alike
