'use strict';
// Child processes that inherit the standard output or error. They get a pipe instead, which a thread of its
// own reads (reader.js): the function's thread may wait for the child, and could not read what it writes.

const cp = require('child_process');
const fs = require('fs');
const os = require('os');
const path = require('path');
const { Worker } = require('worker_threads');
const { hidden } = require('./environment');

const PIPES = 8; // that are made at a time
const PATIENCE = 5000; // milliseconds that the first child waits for the thread
const ORDER = 1000; // milliseconds that the function waits for it after a child

// Functions may replace these, and lead does.
const { closeSync, constants, mkdtempSync, openSync, rmSync } = fs;
const { spawnSync } = cp;

class Children {
  #log; // path of the socket for lines
  #call; // returns the ID of the call that runs
  #pipes = []; // that no child has: their reading ends
  #reader = null;
  #without = false; // the worker thread could not be started
  #state = new Int32Array(new SharedArrayBuffer(4)); // what the reader has done: 1 when it takes pipes, and one more for each time that it passed on everything
  #asked = 1; // when it has done all that it was asked for

  constructor(log, call) {
    this.#log = log;
    this.#call = call;
  }

  /** Puts a pipe in the place of each of our standard descriptors in a child's stdio, and starts the child. Returns what run returns. over calls its argument when the child has ended. */
  start(stdio, run, over) {
    const writers = new Map();
    let led = stdio;
    try {
      led = this.#lead(stdio, writers);
    } catch { // for want of descriptors, of threads or of mkfifo: it inherits what it asks for
    }
    try {
      return run(led);
    } finally {
      for (const fd of writers.values()) closeSync(fd);
      // What the function writes next comes after what the child wrote.
      if (writers.size > 0) over(() => this.pass(false, ORDER));
    }
  }

  #lead(stdio, writers) {
    const list = stdio === 'inherit' ? [stdio, stdio, stdio] : Array.isArray(stdio) ? stdio : [];
    const ours = list.map((one, at) => (one === 'inherit' ? at : typeof one === 'number' ? one : one?._handle ? -1 : one?.fd));
    for (const fd of new Set(ours)) if (fd === 1 || fd === 2) writers.set(fd, this.#pipe(fd));
    return writers.size === 0 ? stdio : list.map((one, at) => writers.get(ours[at]) ?? one);
  }

  /** Returns the writing end of a pipe whose content is to go to a descriptor. */
  #pipe(fd) {
    if (this.#without) throw new Error('no thread');
    if (this.#reader === null) {
      Atomics.store(this.#state, 0, 0);
      this.#asked = 1;
      this.#reader = this.#read();
    }
    if (this.#pipes.length === 0) this.#pipes = makePipes();
    const reading = this.#pipes.pop();
    const writing = openSync(`/proc/self/fd/${reading}`, constants.O_WRONLY);
    this.#reader.postMessage({ reading, fd, call: this.#call() });
    return writing;
  }

  #read() {
    const workerData = { log: this.#log, hidden: hidden.map(({ bytes }) => bytes), state: this.#state };
    const reader = new Worker(path.join(__dirname, 'reader.js'), { workerData, execArgv: [], env: {} });
    reader.unref();
    reader.on('error', () => { this.#reader = null; }); // the next child gets a new one
    this.#without = Atomics.wait(this.#state, 0, 0, PATIENCE) === 'timed-out';
    if (this.#without) throw new Error('the thread does not start');
    return reader;
  }

  /** Has what children have written passed on, also lines that are not finished if it is the end. Waits at most that many milliseconds. */
  pass(end, ms) {
    if (this.#reader === null) return;
    this.#reader.postMessage({ end });
    this.#asked++;
    for (let done; (done = Atomics.load(this.#state, 0)) < this.#asked;) {
      if (Atomics.wait(this.#state, 0, done, ms) === 'timed-out') return;
    }
  }
}

/** Makes pipes and returns their reading ends. Only a FIFO can be made without native code; nobody else finds it. */
function makePipes() {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'fob-'));
  try {
    const names = Array.from({ length: PIPES }, (_, i) => path.join(folder, String(i)));
    const { error, status } = spawnSync('mkfifo', ['-m', '600', ...names], { stdio: 'ignore' });
    if (status !== 0) throw error ?? new Error('mkfifo failed');
    return names.map((name) => openSync(name, constants.O_RDONLY | constants.O_NONBLOCK));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Makes all ways to start a child pass on what it writes. call returns the ID of the call that runs. */
function lead(log, call) {
  const children = new Children(log, call);
  const { spawn } = cp.ChildProcess.prototype; // of fork, exec and cluster, too
  cp.ChildProcess.prototype.spawn = function (options) {
    const run = (stdio) => spawn.call(this, stdio === options?.stdio ? options : { ...options, stdio });
    return children.start(options?.stdio, run, (pass) => this.prependOnceListener('exit', pass));
  };
  for (const name of ['spawnSync', 'execSync', 'execFileSync']) {
    const plain = cp[name];
    cp[name] = { [name](...args) {
      const at = args.findLastIndex((arg) => typeof arg === 'object' && arg !== null && !Array.isArray(arg));
      if (at < 0) return plain(...args);
      return children.start(args[at].stdio, (stdio) => {
        if (stdio !== args[at].stdio) args[at] = { ...args[at], stdio };
        return plain(...args);
      }, (pass) => pass());
    } }[name];
  }
  require('module').syncBuiltinESMExports();
  return children;
}

module.exports = { lead };
