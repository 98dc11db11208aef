// The program that `../caller.py` describes, with grpc-js.
'use strict';
const grpc = require('@grpc/grpc-js');
require('@grpc/grpc-js-xds').register();

const METHOD = '/turnout.test.Model/Which';
const AT_ONCE = 2;
const same = (bytes) => bytes;
const clients = new Map();
const counts = {};
let stopping = false;
let background = [];

function client(target) {
  if (!clients.has(target)) clients.set(target, new grpc.Client(target, grpc.credentials.createInsecure()));
  return clients.get(target);
}

function call(target, said) {
  const metadata = new grpc.Metadata();
  for (const [key, value] of Object.entries(said)) metadata.set(key, value);
  return new Promise((resolve) => {
    const options = { deadline: Date.now() + 10000 };
    client(target).makeUnaryRequest(METHOD, same, same, Buffer.alloc(0), metadata, options, (error, answer) => {
      resolve(error ? `${grpc.status[error.code]}: ${error.details}` : answer.toString());
    });
  });
}

function count(into, said) {
  into[said] = (into[said] || 0) + 1;
}

async function callOn(target) {
  while (!stopping) count(counts, await call(target, {}));
}

async function perform(order) {
  const said = {};
  if (order.do === 'call') {
    for (let i = 0; i < (order.times || 1); i++) count(said, await call(order.target, order.metadata || {}));
  } else if (order.do === 'start') {
    background = Array.from({ length: AT_ONCE }, () => callOn(order.target));
  } else if (order.do === 'stop') {
    stopping = true;
    await Promise.all(background);
    return counts;
  }
  return said;
}

const lines = require('readline').createInterface({ input: process.stdin });
let last = Promise.resolve();
lines.on('line', (line) => {
  last = last.then(async () => {
    const began = Date.now();
    const said = await perform(JSON.parse(line));
    process.stdout.write(JSON.stringify({ said, seconds: (Date.now() - began) / 1000 }) + '\n');
  });
});
lines.on('close', () => process.exit(0));
