'use strict';
// Which call a line of the log belongs to, and its way to the dispatcher.

const { AsyncLocalStorage, AsyncResource } = require('async_hooks');
const environment = require('./environment');
const { Frames } = require('./frames');
const { Lines } = require('./lines');

/** A call whose lines are sent, or all that belongs to none. */
class Call {
  constructor(id) {
    this.id = id;
    this.lines = null; // by level, if there are secrets, in order to hide them
  }
}

/** Sends the lines of calls once it has been opened, and does nothing before. */
class Calls {
  #storage = new AsyncLocalStorage(); // costs promises something once it was used
  #none = new Call('-');
  #frames = null;
  #children = null;

  /** Does once what opening and a call do. A socket that takes connections is at path; nothing is sent to it. */
  warmUp(path) {
    new Frames(path).part();
    new AsyncResource('FobWarm').runInAsyncScope(() => this.#storage.enterWith(this.#none));
  }

  /** Sends to the socket at path from now on. */
  open(path, kept) {
    this.#frames = new Frames(path, kept);
  }

  /** Makes the present asynchronous context one of the call. */
  begin(id) {
    if (this.#frames !== null) this.#storage.enterWith(new Call(id));
  }

  /** Sends bytes that were written at a level. */
  write(level, data) {
    if (this.#frames === null) return;
    const call = this.#call;
    if (!environment.hides()) {
      this.#frames.send(call.id, level, data);
      return;
    }
    call.lines ??= new Map();
    let lines = call.lines.get(level);
    if (lines === undefined) call.lines.set(level, lines = new Lines((shown, over) => this.#frames.send(call.id, level, shown, over)));
    lines.add(data);
  }

  /** Sends the rest of the present call's lines. */
  end() {
    const { lines } = this.#call;
    if (lines !== null) for (const some of lines.values()) some.flush(false);
  }

  get #call() {
    return this.#storage.getStore() ?? this.#none;
  }

  /** Sends what is held. Returns whether there is nothing more. */
  drain() {
    this.#frames?.drain();
    return !this.#frames?.waiting;
  }

  /** Makes output that child processes inherit lines of the call that starts them. */
  leadChildren() {
    if (this.#frames !== null) this.#children = require('./children').lead(this.#frames.path, () => this.#call.id);
  }

  /** Sends what child processes have written. Waits at most that many milliseconds. */
  endChildren(ms) {
    this.#children?.pass(true, ms);
  }
}

module.exports = { Calls };
