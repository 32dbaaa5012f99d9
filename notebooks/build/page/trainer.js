// The trainer's drawings and buttons. What is trained is train.js's, an epoch at a time, so that the page stays awake.
{
const EPOCHS = 80, GOAL = 180, LEAST_MILLISECONDS = 25;  // an epoch, so that there is something to watch
const RECIPES = {whole_return, rewards_to_go, minus_mean};
const root = document.querySelector(".trainer"), find = name => root.querySelector(name);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const button = find("[data-train]"), seed = find("[data-seed]");
const settings = [...root.querySelectorAll("details :is(input, select)")];
let run, model, mean_returns = [], runs_before = [], is_training = false, last_turn = 0, is_turning = false;

// ---- 1. What is drawn

class Stage {
  constructor(figure) {
    this.epoch = Number(figure.dataset.stage);
    [this.world, this.cart] = figure.querySelectorAll("g");
    [this.button, this.caption] = figure.querySelectorAll("button, span");
    this.pole = this.cart.querySelector("path");
    this.button.addEventListener("click", () => this.play());
    this.clear();
  }

  clear() {
    [this.states, this.began] = [[], null];
    this.cart.setAttribute("visibility", "hidden");
    this.button.disabled = true;
    this.caption.textContent = this.epoch ? `epoch ${this.epoch}` : "";
  }

  // Let the model play one episode, the same start and die for all stages; its training's die is another.
  watch(model) {
    const [episode] = collect_episodes(model, 1, 1, create_random(3));
    this.states = [...episode.steps.map(step => step.policy.observation), episode.state];
    this.button.disabled = false;
    if (calm.matches) this.show(this.states.length - 1);
    else this.play();
  }

  play() {
    this.began = performance.now();
    keep_turning();
  }

  turn(now) {
    if (this.began === null) return;
    const step = Math.min(Math.max(Math.floor((now - this.began) / 20), 0), this.states.length - 1);  // 0.02 s a step
    if (step === this.states.length - 1) this.began = null;
    this.show(step);
  }

  show(step) {
    const [position, , angle] = this.states[step], last = this.states.at(-1);
    const shift = Math.sign(position) * Math.max(Math.abs(position) - 1, 0);  // the picture follows near its edges
    this.cart.setAttribute("visibility", "visible");
    this.world.setAttribute("transform", `translate(${-shift} 0)`);
    this.cart.setAttribute("transform", `translate(${position} 0)`);
    this.pole.setAttribute("transform", `rotate(${angle * 180 / Math.PI} 0 -0.2)`);
    this.caption.textContent =
      step < this.states.length - 1 ? `step ${step}` :
      cartpole.has_fallen(last) ? `down after ${step} steps` :
      cartpole.has_left(last) ? `off the track after ${step} steps` : `up for all ${step} steps`;
  }
}

const draw_curve = () => {
  const x = epoch => 44 + 404 * epoch / EPOCHS, y = steps => 206 - 190 * steps / cartpole.MOST_STEPS;
  const point = (steps, epoch) => `${x(epoch + 1).toFixed(1)},${y(steps).toFixed(1)}`;
  const line = (curve, kind) => `<polyline class="${kind}" points="${curve.map(point).join(" ")}"/>`;
  const text = (words, right, down, anchor) => `<text x="${right}" y="${down}" text-anchor="${anchor}">${words}</text>`;
  find("[data-curve] svg").setAttribute("aria-label", reached());
  find("[data-curve] svg").innerHTML = [
    `<path d="M${x(0)} ${y(200)}V${y(0)}H${x(EPOCHS)}"/><path class="goal" d="M${x(0)} ${y(GOAL)}H${x(EPOCHS)}"/>`,
    ...[0, 100, GOAL, 200].map(steps => text(steps, x(0) - 8, y(steps) + 5, "end")),
    text(0, x(0), 226, "middle"), text("epoch", x(EPOCHS / 2), 226, "middle"), text(EPOCHS, x(EPOCHS), 226, "end"),
    ...runs_before.map(curve => line(curve, "before")), line(mean_returns, "now"),
    text(reached(), x(EPOCHS), y(0) - 10, "end"),
  ].join("");
};

// The probability of a push to the right, by the pole's angle and angular velocity, for a cart at rest in the center.
const draw_map = () => {
  const canvas = find("canvas"), size = canvas.width, pen = canvas.getContext("2d");
  const image = pen.createImageData(size, size), style = getComputedStyle(root);
  const [left, right] = ["--left", "--right"].map(
    name => style.getPropertyValue(name).match(/[0-9a-f]{2}/gi).map(hex => parseInt(hex, 16)));
  const chances = Array.from({length: size * size}, (_, place) => {
    const across = place % size / (size - 1), up = 1 - Math.floor(place / size) / (size - 1);
    return get_policy(model, [0, 0, cartpole.FALL_ANGLE * (2 * across - 1), 2 * (2 * up - 1)]).probabilities[1];
  });
  chances.forEach((chance, place) =>
    image.data.set([...(chance < 0.5 ? left : right), 255 * Math.abs(2 * chance - 1)], 4 * place));
  pen.putImageData(image, 0, 0);
  const percent = some => `${Math.round(100 * mean(some))} %`, half = chances.length / 2;
  canvas.setAttribute("aria-label", `It pushes right in ${percent(chances.slice(0, half))} of cases where the pole ` +
    `swings right, in ${percent(chances.slice(half))} where it swings left.`);
};

const draw = () => {
  draw_curve();
  draw_map();
};

// ---- 2. What is said

const say = text => { find("[data-said]").textContent = text; };
const reached = () => mean_returns.length ?
  `Epoch ${mean_returns.length} of ${EPOCHS}: up for ${Math.round(mean_returns.at(-1))} steps.` : "No epoch yet.";

// ---- 3. What happens

const stages = [...root.querySelectorAll("[data-stage]")].map(figure => new Stage(figure));

const begin_anew = () => {
  if (mean_returns.length) runs_before = [...runs_before, mean_returns].slice(-8);
  [is_training, run, mean_returns] = [false, null, []];
  button.textContent = "Train";
  for (const stage of stages) stage.clear();
  if (!seed.checkValidity()) return say(`The seed is "${seed.value}"; give a whole number from 0 to ${seed.max}.`);
  const [, rate, weigh, poles] = settings.map(setting => setting.value);
  run = train({seed: Number(seed.value), learning_rate: Number(rate), weigh: RECIPES[weigh],
               number_of_environments: Number(poles), epochs: EPOCHS});
  take_turn();
  say("Untrained: the pole is soon down.");
};

// Take over what run hands over: the model before its first epoch, then an epoch.
const take_turn = () => {
  ({model, mean_returns} = run.next().value);
  const epoch = mean_returns.length;
  for (const stage of stages) if (stage.epoch === epoch) stage.watch(model);
  if (epoch === EPOCHS) {
    is_training = false;
    button.textContent = `Train seed ${Number(seed.value) + 1}`;
  }
  if (epoch % 20 === 0 && epoch) say(reached());
  if (!calm.matches || epoch % 20 === 0) draw();
};

const turn = now => {
  if (is_training && now - last_turn >= LEAST_MILLISECONDS) {
    last_turn = now;
    take_turn();
  }
  for (const stage of stages) stage.turn(now);
  is_turning = is_training || stages.some(stage => stage.began !== null);
  if (is_turning) requestAnimationFrame(turn);
};

const keep_turning = () => {
  if (!is_turning) requestAnimationFrame(turn);
  is_turning = true;
};

button.addEventListener("click", () => {
  if (mean_returns.length === EPOCHS) seed.value = Number(seed.value) + 1;
  if (!is_training && [0, EPOCHS].includes(mean_returns.length)) begin_anew();
  if (!run) return;
  is_training = !is_training;
  button.textContent = is_training ? "Stop" : "Go on";
  find("[data-anew]").hidden = false;
  say(is_training ? "It plays and learns." : `Stopped. ${reached()}`);
  if (is_training) keep_turning();
  else draw();
});
find("[data-anew]").addEventListener("click", begin_anew);
for (const setting of settings) setting.addEventListener("change", begin_anew);
begin_anew();
}
