// The program that `../caller.py` describes, for Node with grpc-js.
'use strict';
const grpc = require('@grpc/grpc-js');
require('@grpc/grpc-js-xds').register();

const METHOD = '/turnout.test.Model/Which';
const CONCURRENT_CALLS = 2;
const identity = (bytes) => bytes;
const clients = new Map();
const backgroundCounts = {};
let stopping = false;
let background = [];

function client(target) {
  if (!clients.has(target)) clients.set(target, new grpc.Client(target, grpc.credentials.createInsecure()));
  return clients.get(target);
}

function call(target, fields) {
  const metadata = new grpc.Metadata();
  for (const [key, value] of Object.entries(fields)) metadata.set(key, value);
  return new Promise((resolve) => {
    const options = { deadline: Date.now() + 10000 };
    client(target).makeUnaryRequest(METHOD, identity, identity, Buffer.alloc(0), metadata, options, (error, answer) => {
      resolve(error ? `${grpc.status[error.code]}: ${error.details}` : answer.toString());
    });
  });
}

function count(counts, answer) {
  counts[answer] = (counts[answer] || 0) + 1;
}

async function callUntilStopped(target) {
  while (!stopping) count(backgroundCounts, await call(target, {}));
}

async function run(command) {
  const counts = {};
  if (command.command === 'call') {
    for (let i = 0; i < (command.times || 1); i++) count(counts, await call(command.target, command.metadata || {}));
  } else if (command.command === 'start') {
    background = Array.from({ length: CONCURRENT_CALLS }, () => callUntilStopped(command.target));
  } else if (command.command === 'stop') {
    stopping = true;
    await Promise.all(background);
    return backgroundCounts;
  }
  return counts;
}

const lines = require('readline').createInterface({ input: process.stdin });
let previous = Promise.resolve();
lines.on('line', (line) => {
  previous = previous.then(async () => {
    const start = Date.now();
    const counts = await run(JSON.parse(line));
    process.stdout.write(JSON.stringify({ counts, seconds: (Date.now() - start) / 1000 }) + '\n');
  });
});
lines.on('close', () => process.exit(0));
