// Answers each line of JSON on stdin with one on stdout; read by tfjs.py. In float32, on tf.js's
// own JavaScript backend.
//   {}                                    -> {version}
//   {kind, config, weights, x, state, mask}  a recurrent layer -> {outputs}: y, then the states
//   {folder, inputs}                         a model           -> {outputs}
// A tensor is {shape, dtype, data}: its numbers as float32, in base64.
const fs = require('fs');
const path = require('path');
const tf = require('@tensorflow/tfjs');

for (const name of ['log', 'info', 'warn', 'debug']) console[name] = console.error;

function unpacked({shape, dtype, data}) {
  const bytes = Buffer.from(data, 'base64');
  const numbers = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  return tf.tensor(numbers, shape).cast(dtype);
}

function packed(tensor) {
  const numbers = Float32Array.from(tensor.dataSync());
  return {shape: tensor.shape, data: Buffer.from(numbers.buffer).toString('base64')};
}

function run({kind, config, weights, x, state, mask}) {
  return tf.tidy(() => {
    const returned = {returnSequences: true, returnState: true};
    const layer = tf.layers[kind]({...config, ...returned, weights: weights.map(unpacked)});
    const given = {initialState: state.map(unpacked)};
    if (mask) given.mask = unpacked(mask);
    return layer.apply(unpacked(x), given).map(packed);
  });
}

async function runModel({folder, inputs}) {
  const fetchFunc = async url => {
    const type = url.endsWith('.json') ? 'application/json' : 'application/octet-stream';
    const body = fs.readFileSync(path.join(folder, url.replace('http://host/', '')));
    return new Response(body, {status: 200, headers: {'Content-Type': type}});
  };
  const model = await tf.loadLayersModel(tf.io.http('http://host/model.json', {fetchFunc}));
  const tensors = inputs.map(unpacked);
  const given = tensors.length > 1 ? tensors : tensors[0];
  const outputs = model.predict(given, {batchSize: tensors[0].shape[0]});
  return (Array.isArray(outputs) ? outputs : [outputs]).map(packed);
}

async function answer(line) {
  try {
    await tf.setBackend('cpu');
    const question = JSON.parse(line);
    if (question.folder) return {outputs: await runModel(question)};
    if (question.kind) return {outputs: run(question)};
    return {version: tf.version.tfjs};
  } catch (error) {
    return {error: error.message};
  }
}

async function main() {
  const lines = require('readline').createInterface({input: process.stdin, crlfDelay: Infinity});
  for await (const line of lines) {
    process.stdout.write(JSON.stringify(await answer(line)) + '\n');
  }
}

main();
