// A competitor of bench_training.py in tf.js: node tfjs_training.js cpu|wasm BOUND
// It answers messages as `race.py` sends them: JSON, one a line.

const fs = require('fs');
const readline = require('readline');

const [backend, bound] = [process.argv[2], Number(process.argv[3])];
const say = answer => process.stdout.write(JSON.stringify(answer) + '\n');

let tf;
try {
  tf = require('@tensorflow/tfjs');
  if (backend === 'wasm') require('@tensorflow/tfjs-backend-wasm');
} catch (error) {
  say({missing: String(error.message).split('\n')[0]});
  process.exit(0);
}

const now = () => Number(process.hrtime.bigint()) / 1e9;

function learner({arrays}) {
  const shape = [arrays.x.length, arrays.x[0].length, arrays.x[0][0].length];
  const model = tf.sequential({layers: [
    tf.layers.lstm({
      units: arrays.recurrent.length, stateful: true, batchInputShape: shape,
      recurrentActivation: 'sigmoid',
    }),
    tf.layers.dense({units: arrays.dense_bias.length, activation: 'relu'}),
    tf.layers.dense({units: 1}),
  ]});
  const names = ['kernel', 'recurrent', 'bias', 'dense', 'dense_bias', 'out', 'out_bias'];
  model.setWeights(names.map(name => tf.tensor(arrays[name])));
  const optimizer = tf.train.adam(0.001, 0.9, 0.999, 1e-7);
  model.compile({optimizer, loss: 'meanSquaredError'});
  const x = tf.tensor(arrays.x), y = tf.tensor(arrays.y);
  let updates = 0;
  return () => {
    // Keras adds epsilon before the correction of the second moment, tf.js after it
    optimizer.epsilon = 1e-7 / Math.sqrt(1 - 0.999 ** ++updates);
    return model.trainOnBatch(x, y);
  };
}

async function timed(update, seconds) {
  let started = now();
  await update();
  const once = now() - started;
  if (once > seconds) return [once, once];
  const times = [];
  for (let k = Math.max(1, Math.floor(seconds / once)); k > 0; k--) {
    started = now();
    await update();
    times.push(now() - started);
  }
  times.sort((a, b) => a - b);
  return [times[Math.floor(times.length / 2)], times[0]];
}

let update;
const doing = {
  async prepare({path}) {
    if (!await tf.setBackend(backend)) throw new Error(`no backend ${backend}`);
    await tf.ready();
    const given = JSON.parse(fs.readFileSync(path));
    update = learner(given);
    let error = 0;
    for (const want of given.losses) error = Math.max(error, Math.abs(await update() / want - 1));
    return error <= bound ? {error} : {error, skipped: `wrong by ${error.toExponential(1)}`};
  },
  async settle() {
    return {seconds: (await timed(update, 0.01))[0]};
  },
  async time({seconds}) {
    const [median, minimum] = await timed(update, seconds);
    return {median, minimum};
  },
};

(async () => {
  say({});
  for await (const line of readline.createInterface({input: process.stdin})) {
    const message = JSON.parse(line);
    try {
      say(await doing[message.do](message));
    } catch (error) {
      say({failed: String(error).slice(0, 300)});
    }
  }
})();
