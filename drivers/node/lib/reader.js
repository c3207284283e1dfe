'use strict';
// The thread that passes on what child processes write: to the driver's own standard output and error, as it comes,
// and line by line to the dispatcher.

const fs = require('fs');
const net = require('net');
const { parentPort, workerData } = require('worker_threads');
const { hidden } = require('./environment');
const { Frames } = require('./frames');
const { Lines } = require('./lines');
const { Log } = require('./log');

const PIECE = 64 << 10; // bytes of a line that are passed on at a time
const PATIENCE = 20; // milliseconds that an unfinished line waits for its rest
const AHEAD = 1 << 20; // bytes that may wait to be written to a descriptor while children go on
const RETRY = 5; // milliseconds between two looks at whether they do

hidden.push(...workerData.hidden.map((bytes) => ({ bytes: Buffer.from(bytes), text: null })));
const frames = new Frames(workerData.log);
const logs = { 1: new Log(1), 2: new Log(2) };
const pipes = new Set();

class Pipe {
  constructor({ reading, fd, call }) {
    this.reading = reading;
    this.log = logs[fd];
    this.send = (data, over) => frames.send(call, fd === 1 ? 'stdout' : 'stderr', data, over);
    this.lines = new Lines(this.send);
    this.rest = Buffer.alloc(0); // of an unfinished line
    this.begun = false; // a piece of it has been sent
    this.timer = null;
    this.socket = new net.Socket({ fd: reading, readable: true, writable: false });
    this.socket.on('data', (data) => this.take(data)).on('error', () => {});
    for (const event of ['end', 'close']) { // an end is known before the descriptor is closed
      this.socket.on(event, () => {
        this.flush();
        pipes.delete(this);
      });
    }
    pipes.add(this);
  }

  take(data) {
    this.log.put(data);
    // A child waits for a reader of the driver's log, as it does without this thread.
    if (this.log.size > AHEAD) this.hold();
    data = Buffer.concat([this.rest, data]);
    const cut = data.lastIndexOf(10) + 1;
    if (cut > 0) {
      this.lines.add(data.subarray(0, cut));
      this.begun = false;
    }
    this.rest = data.subarray(cut);
    clearTimeout(this.timer);
    if (this.rest.length >= PIECE) this.pass();
    else if (this.rest.length > 0) this.timer = setTimeout(() => this.pass(), PATIENCE);
  }

  hold() {
    this.socket.pause();
    setTimeout(() => (this.log.size > AHEAD ? this.hold() : this.socket.resume()), RETRY);
  }

  /** Sends an unfinished line. */
  pass() {
    this.lines.add(this.rest);
    this.rest = this.rest.subarray(this.rest.length);
    this.begun = true;
  }

  /** Ends the line that is unfinished. */
  flush() {
    clearTimeout(this.timer);
    const unsent = this.rest.length + this.lines.pieces.length > 0;
    this.lines.pieces.push(this.rest);
    this.lines.flush(false);
    if (this.begun && !unsent) this.send(this.rest.subarray(this.rest.length), true);
    this.rest = this.rest.subarray(this.rest.length);
    this.begun = false;
  }

  /** Takes what there is now. */
  drain() {
    if (this.socket.destroyed) return; // and its descriptor may be another file's
    const data = Buffer.alloc(PIECE);
    try {
      let n = 1;
      while (n > 0 && this.log.size <= AHEAD) {
        n = fs.readSync(this.reading, data);
        if (n > 0) this.take(Buffer.from(data.subarray(0, n)));
      }
      if (n === 0) this.flush(); // before another child writes
    } catch { // there is nothing now
    }
  }
}

parentPort.on('message', (message) => {
  if (message.end === undefined) {
    new Pipe(message);
    return;
  }
  for (const pipe of pipes) {
    pipe.drain();
    if (message.end) pipe.flush();
  }
  for (const log of Object.values(logs)) log.drain();
  frames.drain();
  done();
});
done();

/** Tells the function's thread. */
function done() {
  Atomics.add(workerData.state, 0, 1);
  Atomics.notify(workerData.state, 0);
}
