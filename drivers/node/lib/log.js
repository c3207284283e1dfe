'use strict';
// The function's log: a standard output and a standard error that never block and never close.

const fs = require('fs');
const { Writable } = require('stream');
const { hide, settled } = require('./environment');

const LIMIT = 4 << 20; // bytes that may wait to be written
const PIECE = 64 << 10; // bytes of a line that are written at a time
const RETRY = 5; // milliseconds until another attempt to write to a full pipe

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
      return fs.writeSync(this.fd, data);
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

/** Replaces process.stdout and process.stderr. */
class Stream extends Writable {
  constructor(fd) {
    super({ decodeStrings: false });
    this.fd = fd;
    this.log = new Log(fd);
    this.pieces = []; // of an unfinished line; usually there are none
  }

  write(data, encoding, done) {
    if (typeof encoding === 'function') [encoding, done] = [undefined, encoding];
    if (typeof data === 'string') {
      if (encoding && encoding !== 'utf8' && encoding !== 'utf-8') this.add(Buffer.from(data, encoding));
      else for (const piece of pieces(data)) this.add(Buffer.from(piece));
    } else if (ArrayBuffer.isView(data)) {
      const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
      // Copied, because the function may reuse the buffer.
      for (let i = 0; i < bytes.length; i += PIECE) this.add(Buffer.from(bytes.subarray(i, i + PIECE)));
    } else {
      throw new TypeError(`a log line is text or bytes, not ${data === null ? 'null' : typeof data}`);
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

  add(data) {
    const cut = data.lastIndexOf(10) + 1;
    if (cut > 0) {
      this.pieces.push(cut < data.length ? data.subarray(0, cut) : data);
      this.endCall();
      data = data.subarray(cut);
    }
    if (data.length === 0) return;
    // Write an unfinished line, too: the process may be killed before it is finished.
    this.pieces.push(data);
    this.flush(true);
  }

  /** Writes the rest of the line that was begun. */
  endCall() { this.flush(false); }

  /** Writes what there is. If the line goes on, it holds back an end in which a secret may have begun. */
  flush(goesOn) {
    if (this.pieces.length === 0) return;
    const data = this.pieces.length === 1 ? this.pieces[0] : Buffer.concat(this.pieces);
    const end = goesOn ? settled(data) : data.length;
    this.pieces = end < data.length ? [data.subarray(end)] : [];
    if (end > 0) this.log.put(hide(data.subarray(0, end)));
  }
}

// In pieces, so as not to hold all of a long text twice, and never between the two halves of a character.
function* pieces(text) {
  for (let from = 0, to; from < text.length; from = to) {
    to = from + PIECE;
    if ((text.charCodeAt(to - 1) & 0xfc00) === 0xd800) to++;
    yield text.slice(from, to);
  }
}

/** Replaces process.stdout and process.stderr and keeps their descriptors taken. */
function install() {
  const out = new Stream(1);
  const err = new Stream(2);
  for (const [name, value] of [['stdout', out], ['stderr', err]]) {
    Object.defineProperty(process, name, { value, configurable: true, enumerable: true, writable: true });
  }
  keepTaken();
  return {
    endCall() {
      out.endCall();
      err.endCall();
    },
    /** Writes everything. Waits at most that many milliseconds. */
    end(ms) {
      this.endCall();
      const until = Date.now() + ms;
      const nap = new Int32Array(new SharedArrayBuffer(4));
      for (;;) {
        out.log.drain();
        err.log.drain();
        if (out.log.held.length + err.log.held.length === 0 || Date.now() >= until) return;
        Atomics.wait(nap, 0, 0, 2);
      }
    },
  };
}

// If a socket took the place of a closed standard descriptor, it would get what child
// processes print, and libuv would abort the process when the socket is closed.
function keepTaken() {
  const { close, closeSync, openSync } = fs;
  const refill = () => openSync('/dev/null', 'r+'); // gets the lowest free descriptor
  fs.closeSync = function (fd) {
    closeSync(fd);
    if (fd <= 2) refill();
  };
  fs.close = function (fd, done) {
    if (!(fd <= 2)) return done === undefined ? close(fd) : close(fd, done);
    let error = null;
    try { fs.closeSync(fd); } catch (e) { error = e; }
    if (typeof done === 'function') process.nextTick(done, error);
  };
  // For what `import` returns. Before a module is loaded it is not worth its cost.
  return require('module').syncBuiltinESMExports();
}

module.exports = { install };
