'use strict';
// The function's log: a standard output and a standard error that never block and never close.

const fs = require('fs');
const { Writable } = require('stream');
const { Calls } = require('./calls');
const { character } = require('./frames');
const { Lines } = require('./lines');

const LIMIT = 4 << 20; // bytes that may wait to be written
const PIECE = 64 << 10; // bytes of a line that are written at a time
const RETRY = 5; // milliseconds until another attempt to write to a full pipe

// Functions may replace these, and noteDirectWrites does.
const { now } = Date;
const { setTimeout } = globalThis;
const { writeSync } = fs;

/** Writes bytes to a descriptor without ever waiting for its reader. */
class Log {
  constructor(fd) {
    this.fd = own(fd);
    this.held = [];
    this.size = 0;
    this.dropped = 0;
    this.last = 10; // the last byte that was written or held
    this.timer = null;
  }

  /** Writes, holds or drops data, which is a line or part of a long one. */
  put(data) {
    if (this.held.length > 0 || this.dropped > 0) this.drain();
    if (this.held.length === 0 && this.dropped === 0) {
      const written = this.write(data);
      if (written > 0) this.last = data[written - 1];
      if (written === data.length) return;
      data = data.subarray(written);
    }
    if (this.size + data.length > LIMIT) {
      this.dropped += data.length;
    } else {
      if (this.dropped > 0) this.notice();
      this.hold(data);
    }
    this.timer ??= setTimeout(() => { this.timer = null; this.retry(); }, RETRY);
  }

  /** Writes as much as is possible now of what is held. */
  drain() {
    for (;;) {
      if (this.held.length === 0) {
        if (this.dropped === 0) return;
        this.notice();
      }
      const data = this.held[0];
      const written = this.write(data);
      this.size -= written;
      if (written < data.length) {
        this.held[0] = data.subarray(written);
        return;
      }
      this.held.shift();
    }
  }

  retry() {
    this.drain();
    if (this.held.length > 0) this.timer ??= setTimeout(() => { this.timer = null; this.retry(); }, RETRY);
  }

  hold(data) {
    this.held.push(data);
    this.size += data.length;
    this.last = data[data.length - 1];
  }

  notice() {
    const text = `[fob: ${this.dropped} bytes of log dropped]\n`;
    this.dropped = 0;
    this.hold(Buffer.from(this.last === 10 ? text : '\n' + text));
  }

  /** Writes and returns how many bytes were written. If nobody will ever read them, all count as written. */
  write(data) {
    try {
      return writeSync(this.fd, data);
    } catch (e) {
      return e.code === 'EAGAIN' ? 0 : data.length;
    }
  }
}

// Opening the file again gives the descriptor flags of its own; O_NONBLOCK on the old
// one would also apply to child processes. What cannot be opened, such as a socket,
// is used as it is, and may block.
function own(fd) {
  const { O_WRONLY, O_NONBLOCK, O_APPEND } = fs.constants;
  try {
    return fs.openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK | O_APPEND);
  } catch {
    return fd;
  }
}

/** Replaces process.stdout or process.stderr. */
class Stream extends Writable {
  constructor(fd, level, calls) {
    super({ decodeStrings: false });
    this.fd = fd;
    this.level = level; // of what is written now
    this.calls = calls;
    this.log = new Log(fd);
    this.lines = new Lines((data) => this.log.put(data));
  }

  write(data, encoding, done) {
    if (typeof encoding === 'function') [encoding, done] = [undefined, encoding];
    for (const piece of pieces(data, encoding)) {
      this.lines.add(piece);
      this.calls.write(this.level, piece);
    }
    if (typeof done === 'function') process.nextTick(done);
    return true;
  }

  // The driver's streams stay open whatever a function does to them.
  end(data, encoding, done) {
    if (typeof data === 'function') [data, done] = [undefined, data];
    if (typeof encoding === 'function') [encoding, done] = [undefined, encoding];
    if (data !== undefined && data !== null) this.write(data, encoding);
    if (typeof done === 'function') process.nextTick(done);
    return this;
  }

  destroy() { return this; }

  /** Writes the rest of the line that was begun. */
  endCall() { this.lines.flush(false); }
}

/** Returns the bytes of what a function writes, in pieces that are cut between characters. */
function pieces(data, encoding) {
  if (typeof data === 'string') {
    if (encoding && encoding !== 'utf8' && encoding !== 'utf-8') return [Buffer.from(data, encoding)];
    return data.length <= PIECE ? [Buffer.from(data)] : piecesOfText(data);
  }
  if (ArrayBuffer.isView(data)) return piecesOfBytes(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  throw new TypeError(`a log line is text or bytes, not ${data === null ? 'null' : typeof data}`);
}

// One by one, so as not to hold all of a long text twice.
function* piecesOfText(text) {
  for (let from = 0, to; from < text.length; from = to) {
    to = from + PIECE;
    if ((text.charCodeAt(to - 1) & 0xfc00) === 0xd800) to++;
    yield Buffer.from(text.slice(from, to));
  }
}

// Copied, because the function may use the bytes again.
function* piecesOfBytes(bytes) {
  for (let from = 0, to; from < bytes.length; from = to) {
    to = from + PIECE;
    if (to < bytes.length) to = character(bytes, to);
    yield Buffer.from(bytes.subarray(from, to));
  }
}

/** Replaces process.stdout and process.stderr and keeps their descriptors taken. */
function install() {
  const calls = new Calls();
  const out = new Stream(1, 'stdout', calls);
  const err = new Stream(2, 'stderr', calls);
  for (const [name, value] of [['stdout', out], ['stderr', err]]) {
    Object.defineProperty(process, name, { value, configurable: true, enumerable: true, writable: true });
  }
  const kept = new Set([out.log.fd, err.log.fd].filter((fd) => fd > 2));
  giveLevels({ debug: out, info: out, warn: err, error: err });
  noteDirectWrites(calls);
  keepTaken(kept);
  // For what `import` returns. Before a module is loaded it is not worth its cost.
  require('module').syncBuiltinESMExports();
  return {
    calls,
    kept,
    endCall() {
      out.endCall();
      err.endCall();
      calls.end();
    },
    /** Writes everything. Waits at most that many milliseconds for what child processes have written, and as many for the rest. */
    end(ms) {
      this.endCall();
      calls.endChildren(ms);
      const until = now() + ms;
      const nap = new Int32Array(new SharedArrayBuffer(4));
      for (;;) {
        out.log.drain();
        err.log.drain();
        const sent = calls.drain();
        if ((out.log.held.length + err.log.held.length === 0 && sent) || now() >= until) return;
        Atomics.wait(nap, 0, 0, 2);
      }
    },
  };
}

/** Makes what these methods of console write have their level. */
function giveLevels(streams) {
  for (const [level, stream] of Object.entries(streams)) {
    const plain = console[level];
    const method = { [level](...args) {
      const before = stream.level;
      stream.level = level;
      try {
        plain(...args);
      } finally {
        stream.level = before;
      }
    } }[level];
    console[level] = method;
  }
}

/** Makes lines of a call of what it writes to descriptor 1 or 2, as some libraries for logging do. */
function noteDirectWrites(calls) {
  const { write } = fs;
  const note = (fd, data, position, encoding, length) => {
    if (length === 0) return;
    const bytes = typeof data === 'string' ? Buffer.from(data, typeof encoding === 'string' ? encoding : 'utf8')
      : Buffer.from(data.buffer, data.byteOffset + (typeof position === 'number' ? position : position?.offset ?? 0));
    calls.write(fd === 1 ? 'stdout' : 'stderr', Buffer.from(bytes.subarray(0, length)));
  };
  fs.writeSync = like(writeSync, function (fd, data, position, encoding) {
    const length = writeSync.apply(fs, arguments);
    if (fd === 1 || fd === 2) note(fd, data, position, encoding, length);
    return length;
  });
  fs.write = like(write, function (fd, data, position, encoding) {
    const done = arguments[arguments.length - 1];
    if ((fd !== 1 && fd !== 2) || typeof done !== 'function') return write.apply(fs, arguments);
    const args = [...arguments];
    args[args.length - 1] = function (e, length) {
      if (!e) note(fd, data, position, encoding, length);
      return done.apply(this, arguments);
    };
    return write.apply(fs, args);
  });
}

/** Gives a function the name and the properties of another one. */
const like = (plain, made) => Object.defineProperties(made, Object.getOwnPropertyDescriptors(plain));

// If a socket took the place of a closed standard descriptor, it would get what child
// processes print, and libuv would abort the process when the socket is closed. If a file
// took the place of one that is the driver's own, it would get the log.
function keepTaken(kept) {
  const { close, closeSync, openSync } = fs;
  const refill = () => openSync('/dev/null', 'r+'); // gets the lowest free descriptor
  fs.closeSync = function (fd) {
    if (kept.has(fd)) return;
    closeSync(fd);
    if (fd <= 2) refill();
  };
  fs.close = function (fd, done) {
    if (!(fd <= 2) && !kept.has(fd)) return done === undefined ? close(fd) : close(fd, done);
    let error = null;
    try { fs.closeSync(fd); } catch (e) { error = e; }
    if (typeof done === 'function') process.nextTick(done, error);
  };
}

module.exports = { Log, install };
