'use strict';
// A request's body: its framing, and a body that streams.

const { Failure } = require('./errors');

const NONE = Buffer.alloc(0);
const PIECE = 1 << 20; // bytes passed to the function at a time, at most
const HELD = 256 << 10; // bytes held for the function before reading stops

/** Thrown when the end of a request cannot be found. The driver answers and closes the connection. */
class Unreadable extends Failure {
  constructor(status, message) {
    super(status, 'bad_request', message);
  }
}

/** Makes the body that headers announce. */
function bodyOf(headers) {
  const length = headers['content-length'];
  const coding = headers['transfer-encoding'];
  delete headers['transfer-encoding'];
  if (coding !== undefined) {
    if (coding.toLowerCase() !== 'chunked' || length !== undefined) {
      throw new Unreadable(400, 'bodies come with Content-Length or Transfer-Encoding: chunked');
    }
    return new Chunked();
  }
  if (length === undefined) return new Sized(0);
  if (!/^\d{1,15}$/.test(length)) throw new Unreadable(400, 'Content-Length is not a number');
  return new Sized(Number(length));
}

/** A body of known length. */
class Sized {
  constructor(length) {
    this.missing = length;
    this.parts = [];
  }

  /** Takes what has come of it from the connection, and returns whether it is complete. */
  take(connection) {
    if (this.missing > 0) this.missing -= move(connection, this.missing, this.parts);
    return this.missing === 0;
  }

  whole() {
    return this.parts.length === 0 ? NONE : this.parts.length === 1 ? this.parts[0] : Buffer.concat(this.parts);
  }
}

/** A chunked body. */
class Chunked {
  constructor() {
    this.missing = 0; // of the chunk that is being read
    this.inChunk = false; // including its line break
    this.ended = false; // only trailers are left
    this.parts = [];
  }

  take(connection) {
    for (;;) {
      if (this.missing > 0) this.missing -= move(connection, this.missing, this.parts);
      if (this.missing > 0) return false;
      const { have } = connection;
      if (this.inChunk) {
        if (have.length < 2) return false;
        if (have[0] !== 13 || have[1] !== 10) throw new Unreadable(400, 'a chunk does not end where it says');
        connection.have = have.subarray(2);
        this.inChunk = false;
        continue;
      }
      const end = have.indexOf('\r\n');
      if (end < 0) {
        if (have.length > 64 << 10) throw new Unreadable(400, "a chunk's header is too long");
        return false;
      }
      const line = have.latin1Slice(0, end);
      connection.have = have.subarray(end + 2);
      if (!this.ended) this.begin(line);
      else if (line === '') return true;
    }
  }

  begin(line) {
    const size = /^\s*([0-9a-fA-F]{1,12})\s*(?:;|$)/.exec(line);
    if (size === null) throw new Unreadable(400, "a chunk's size is not a number");
    this.missing = parseInt(size[1], 16);
    this.ended = this.missing === 0;
    this.inChunk = !this.ended;
  }

  whole() {
    return Buffer.concat(this.parts);
  }
}

/** Moves up to that many bytes from the connection to parts, and returns how many. */
function move(connection, most, parts) {
  const { have } = connection;
  if (have.length === 0) return 0;
  const part = have.length > most ? have.subarray(0, most) : have;
  connection.have = have.length > most ? have.subarray(most) : NONE;
  parts.push(part);
  return part.length;
}

/** A body that is passed to the function as it comes. Little of it is held; meanwhile the socket waits. */
class Incoming {
  constructor(socket, body) {
    this.socket = socket;
    this.body = body;
    this.held = 0; // bytes
    this.complete = false; // everything has come
    this.failure = null;
    this.wake = () => {};
  }

  /** Takes what has come of it from the connection. */
  take(connection) {
    if (this.failure !== null) {
      connection.have = NONE;
      return;
    }
    const { parts } = this.body;
    const before = parts.length;
    try {
      this.complete = this.body.take(connection);
    } catch (e) {
      this.fail(e);
    }
    for (let i = before; i < parts.length; i++) this.held += parts[i].length;
    if (this.held > HELD && !this.complete) this.socket.pause();
    this.wake();
  }

  /** Ends it early: the function gets the Failure. */
  fail(failure) {
    this.failure ??= failure;
    this.wake();
  }

  /** Returns whether the function has not taken all of it. */
  get unread() {
    return !this.complete || this.body.parts.length > 0;
  }

  async *pieces() {
    const { parts } = this.body;
    for (;;) {
      if (parts.length > 0) {
        const part = parts.shift();
        this.held -= part.length;
        for (let i = 0; i < part.length; i += PIECE) yield part.subarray(i, i + PIECE);
      } else if (this.complete) {
        return;
      } else if (this.failure !== null) {
        throw this.failure;
      } else {
        this.socket.resume();
        await new Promise((resolve) => { this.wake = resolve; });
      }
    }
  }

  tooLarge() {
    return new Failure(413, 'too_large', 'the body is too large to be held whole; read it with request.stream()');
  }
}

module.exports = { Incoming, NONE, Sized, Unreadable, bodyOf };
