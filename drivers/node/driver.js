'use strict';
// The Node driver: loads one function and answers calls to it. See
// drivers/contract/README.md for what it must do. The parts, in lib/: log,
// load and params (the user's code), function and result (a call), driver and
// http (the wire), errors.

const setting = {};
for (const name of ['FOB_SOCKET', 'FOB_TOKEN', 'FOB_TCP', 'FOB_CODE_URL']) {
  setting[name] = process.env[name] ?? '';
  delete process.env[name];
}
const log = require('./lib/log').install();

const fs = require('fs');
const net = require('net');
const path = require('path');
const { describe } = require('./lib/errors');
const { Driver } = require('./lib/driver');
const { Connection } = require('./lib/http');

const WARM_UP = 100; // milliseconds to wait for code first; code that comes sooner must not be held up

async function main() {
  if (!setting.FOB_SOCKET && !setting.FOB_TOKEN) {
    console.error('driver: nothing to listen on: set FOB_SOCKET to a path, or FOB_TOKEN to listen on TCP');
    process.exit(2);
  }
  let patience = 500; // milliseconds that the end waits for the log's readers; nobody waits for it if the function ends the process
  process.on('exit', () => log.end(patience));
  for (const signal of ['SIGTERM', 'SIGINT']) {
    process.on(signal, () => {
      patience = 40; // for each of two parts
      process.exit(0);
    });
  }
  // An error outside of a call goes to the function's log, and ends nothing.
  for (const event of ['uncaughtException', 'unhandledRejection']) {
    process.on(event, (thrown) => console.error(`${event}: ${describe(thrown).traceback.trimEnd()}`));
  }
  const driver = new Driver(log, setting.FOB_SOCKET && path.dirname(setting.FOB_SOCKET));
  try {
    // The port must be known now, but a connection that comes early must not be answered early.
    const tcp = setting.FOB_TOKEN ? await listenTCP(setting.FOB_TCP || '0.0.0.0:8080', driver) : null;
    if (setting.FOB_CODE_URL) await fetchCode(setting.FOB_CODE_URL, setting.FOB_TOKEN, driver);
    tcp?.emit('ready');
    if (setting.FOB_SOCKET) await listenUnix(setting.FOB_SOCKET, driver);
    setTimeout(warmUp, WARM_UP, driver);
  } catch (e) {
    console.error(`driver: cannot start: ${e.message}`);
    process.exit(1);
  }
}

// Node's loader of ES modules takes long over its first module, whatever the code in
// it. So the first one is empty, and is loaded while nobody waits. It is not a file:
// reading one would start libuv's threads before UV_THREADPOOL_SIZE is set. What else a
// load and a first call need is done once, too. Code that comes waits for one step at most.
function warmUp(driver) {
  const steps = driver.warmUp(setting.FOB_SOCKET);
  const next = () => {
    if (driver.blank && !steps.next().done) setImmediate(next);
  };
  if (!driver.blank) return;
  require('fs/promises');
  import('data:text/javascript,').then(next);
}

const listen = (server, where) => new Promise((resolve, reject) => {
  server.once('error', reject);
  server.listen({ backlog: 1024, ...where }, resolve);
});

function listenUnix(where, driver) {
  fs.rmSync(where, { force: true }); // a killed driver leaves it behind
  const server = net.createServer({ allowHalfOpen: true }, (socket) => new Connection(socket, driver, null));
  const mask = process.umask(0); // the folder guards the socket
  try {
    return listen(server, { path: where }); // binds before it returns
  } finally {
    process.umask(mask);
  }
}

async function listenTCP(address, driver) {
  const [, host, port] = /^(.*):(\d+)$/.exec(address) ?? [];
  if (port === undefined) throw new Error(`FOB_TCP=${address}: use HOST:PORT`);
  let ready = setting.FOB_CODE_URL === '';
  const server = net.createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    const serve = () => new Connection(socket, driver, setting.FOB_TOKEN);
    if (ready) serve();
    else server.once('ready', serve);
  });
  server.once('ready', () => { ready = true; });
  await listen(server, { host: host.replace(/^\[|\]$/g, ''), port: Number(port) });
  driver.port = server.address().port;
  return server;
}

/** Loads the code that a URL returns. */
async function fetchCode(url, token, driver) {
  let code;
  try {
    const answer = await fetch(url, { headers: token ? { authorization: `Bearer ${token}` } : {}, signal: AbortSignal.timeout(30000) });
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    code = await answer.text();
  } catch (e) {
    throw new Error(`FOB_CODE_URL=${url}: ${e.cause?.message ?? e.message}`);
  }
  try {
    await driver.load({ code });
  } catch (e) {
    const { traceback, message } = e.document.error;
    throw new Error(`FOB_CODE_URL=${url}: ${traceback ?? message}`);
  }
}

main();
