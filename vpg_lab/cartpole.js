// CartPole in JavaScript, as gymnasium/envs/classic_control/cartpole.py has it: the one copy, which the cart to drive
// and the site's trainer share. A state is [position (m), velocity (m/s), angle (rad), angular velocity (rad/s)].
const cartpole = {
  FALL_ANGLE: 12 * 2 * Math.PI / 360, TRACK_END: 2.4, MOST_STEPS: 200,

  // An upright pole, nearly: four numbers from -0.05 to 0.05; random() is uniform from 0 to 1.
  reset: random => [random(), random(), random(), random()].map(number => 0.1 * number - 0.05),

  // A push of 10 N to the left (action 0) or right (1) for 0.02 s, by Euler's method: cart 1 kg, pole 0.1 kg and 1 m.
  step([position, velocity, angle, angular_velocity], action) {
    const sine = Math.sin(angle), cosine = Math.cos(angle), force = action ? 10 : -10;
    const pull = (force + 0.05 * angular_velocity * angular_velocity * sine) / 1.1;
    const turn = (9.8 * sine - cosine * pull) / (0.5 * (4 / 3 - 0.1 * cosine * cosine / 1.1));
    return [
      position + 0.02 * velocity, velocity + 0.02 * (pull - 0.05 * turn * cosine / 1.1),
      angle + 0.02 * angular_velocity, angular_velocity + 0.02 * turn,
    ];
  },

  has_fallen: state => Math.abs(state[2]) > cartpole.FALL_ANGLE,
  has_left: state => Math.abs(state[0]) > cartpole.TRACK_END,
  // Whether an episode is over, terminated or truncated, after so many steps.
  is_done: (state, steps) => cartpole.has_fallen(state) || cartpole.has_left(state) || steps >= cartpole.MOST_STEPS,
};
