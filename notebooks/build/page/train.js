// The simplest policy gradient on CartPole in plain JavaScript, to be read beside vpg_helpers.py: the six functions
// under their names. What PyTorch does there is written out here: the first numbers of a layer, the gradient, Adam.
// The physics is cartpole.js's. A model is a list: weight and bias of the first layer, weight and bias of the last.

// ---- 1. The six functions ------------------------------------------------------------------------------------------

// Begin as PyTorch's layers do: uniform within 1 / sqrt(inputs) of 0. random() is uniform from 0 to 1.
function create_model(random, number_observation_features = 4, number_actions = 2, hidden_units = 32) {
  const uniform = (count, inputs) => Float64Array.from({length: count}, () => (2 * random() - 1) / Math.sqrt(inputs));
  return [
    uniform(hidden_units * number_observation_features, number_observation_features),
    uniform(hidden_units, number_observation_features),
    uniform(number_actions * hidden_units, hidden_units),
    uniform(number_actions, hidden_units),
  ];
}

// Return the probability of each action, with what its gradient needs: PyTorch calls that the graph.
function get_policy([first_weight, first_bias, last_weight, last_bias], observation) {
  const hidden = get_outputs(first_weight, first_bias, observation, 0);
  const logits = get_outputs(last_weight, last_bias, hidden);
  const largest = Math.max(...logits), powers = logits.map(logit => Math.exp(logit - largest)), sum = total(powers);
  return {probabilities: powers.map(power => power / sum), hidden, observation};
}

// Roll the die: an action, 0 (left) or 1 (right), and its log-probability.
function get_action({probabilities}, random) {
  let action = 0, roll = random() - probabilities[0];
  while (roll >= 0 && action < probabilities.length - 1) roll -= probabilities[++action];
  return [action, Math.log(probabilities[action])];
}

// Minus the mean of log-probability times weight; and its slope along each log-probability, for backward.
function calculate_loss(log_probabilities, weights) {
  const products = weights.map((weight, step) => weight * log_probabilities[step]);
  return {loss: -mean(products), slopes: weights.map(weight => -weight / weights.length)};
}

// Play whole episodes to a budget of steps, take one gradient step, return the mean return.
function train_one_epoch(model, optimizer, {weigh, number_of_environments, max_timesteps}, random) {
  const episodes = collect_episodes(model, number_of_environments, max_timesteps, random);
  const steps = episodes.flatMap(episode => episode.steps);
  const {slopes} = calculate_loss(steps.map(step => step.log_probability), weigh(episodes));
  optimizer.step(backward(model, steps, slopes));
  return mean(episodes.map(episode_return));
}

// Train a new model; the seed decides everything. Where Python calls after_epoch, this hands over the model and the
// mean returns so far; also once before the first epoch.
function* train({seed = 0, learning_rate = 1e-2, weigh = whole_return, number_of_environments = 32, epochs = 80,
                 max_timesteps = 5000} = {}) {
  const random = create_random(seed), model = create_model(random), optimizer = create_adam(model, learning_rate);
  const mean_returns = [], settings = {weigh, number_of_environments, max_timesteps};
  yield {model, mean_returns};
  while (mean_returns.length < epochs) {
    mean_returns.push(train_one_epoch(model, optimizer, settings, random));
    yield {model, mean_returns};
  }
}

// ---- 2. Episodes, and what weighs their steps ----------------------------------------------------------------------

// Play whole episodes side by side. Where one has ended, another starts while the steps, those of unfinished episodes
// included, are fewer than max_timesteps; every episode that was started is finished and counted.
function collect_episodes(model, number_of_environments, max_timesteps, random) {
  const begin = () => ({state: cartpole.reset(random), steps: []}), finished = [];
  let playing = Array.from({length: number_of_environments}, begin), played = 0;
  while (playing.length) {
    played += playing.length;
    for (const episode of playing) {
      const policy = get_policy(model, episode.state), [action, log_probability] = get_action(policy, random);
      episode.steps.push({policy, action, log_probability});
      episode.state = cartpole.step(episode.state, action);
    }
    playing = playing.flatMap(episode => {
      if (!cartpole.is_done(episode.state, episode.steps.length)) return [episode];
      finished.push(episode);
      return played < max_timesteps ? [begin()] : [];
    });
  }
  return finished;
}

const episode_return = episode => episode.steps.length;  // every step earns 1

// Recipes: from episodes to one weight per step. The first is lesson 5's, then lesson 6's and lesson 7's.
const whole_return = episodes => weigh_steps(episodes, (step, return_) => return_);
const rewards_to_go = episodes => weigh_steps(episodes, (step, return_) => return_ - step);
const minus_mean = episodes => {
  const mean_return = mean(episodes.map(episode_return));
  return weigh_steps(episodes, (step, return_) => return_ - mean_return);
};
const weigh_steps = (episodes, weigh) =>
  episodes.flatMap(episode => episode.steps.map((_, step) => weigh(step, episode_return(episode))));

// ---- 3. What PyTorch and NumPy bring along -------------------------------------------------------------------------

const total = numbers => numbers.reduce((sum, number) => sum + number, 0);
const mean = numbers => total(numbers) / numbers.length;
const zeros_like = model => model.map(parameter => new Float64Array(parameter.length));

// Random numbers that a seed decides (mulberry32). They are not Python's, so a seed has another curve there.
function create_random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), seed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// What a linear layer makes of its inputs, row of the weight by row; at_least = 0 puts a ReLU behind it.
function get_outputs(weight, bias, inputs, at_least = -Infinity) {
  const outputs = new Array(bias.length);
  for (let output = 0, place = 0; output < bias.length; output++) {
    let sum = bias[output];
    for (let input = 0; input < inputs.length; input++) sum += weight[place++] * inputs[input];
    outputs[output] = Math.max(sum, at_least);
  }
  return outputs;
}

// The chain rule: from the loss's slope along each log-probability to that along each parameter, in a model's form.
function backward(model, steps, slopes) {
  const last_weight = model[2], gradient = zeros_like(model);
  const [by_first_weight, by_first_bias, by_last_weight, by_last_bias] = gradient;
  steps.forEach(({policy: {probabilities, hidden, observation}, action: chosen}, step) => {
    // lesson 3: a log-probability's slope along a logit is 1 - p where that logit is the chosen action's, else -p
    const by_logit = probabilities.map((probability, action) => slopes[step] * ((action === chosen) - probability));
    by_logit.forEach((slope, action) => { by_last_bias[action] += slope; });
    for (let unit = 0; unit < hidden.length; unit++) {
      if (hidden[unit] === 0) continue;  // its ReLU lets nothing through
      let by_unit = 0;
      for (let action = 0, place = unit; action < by_logit.length; action++, place += hidden.length) {
        by_last_weight[place] += by_logit[action] * hidden[unit];
        by_unit += by_logit[action] * last_weight[place];
      }
      by_first_bias[unit] += by_unit;
      for (let feature = 0, place = unit * observation.length; feature < observation.length; feature++, place++)
        by_first_weight[place] += by_unit * observation[feature];
    }
  });
  return gradient;
}

// Adam (Kingma & Ba 2015) with torch.optim.Adam's own settings; step moves the model's parameters in place.
function create_adam(model, learning_rate) {
  const means = zeros_like(model), squares = zeros_like(model);
  let steps = 0;
  const step = gradient => {
    steps += 1;
    model.forEach((parameter, layer) => gradient[layer].forEach((slope, place) => {
      const mean = means[layer][place] = 0.9 * means[layer][place] + 0.1 * slope;
      const square = squares[layer][place] = 0.999 * squares[layer][place] + 0.001 * slope * slope;
      const size = Math.sqrt(square / (1 - 0.999 ** steps)) + 1e-8;
      parameter[place] -= learning_rate * mean / (1 - 0.9 ** steps) / size;
    }));
  };
  return {step};
}
