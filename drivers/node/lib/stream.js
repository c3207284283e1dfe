'use strict';
// An answer that is sent item by item, as the function's iterator yields them.

const { types } = require('util');
const { Failure, describe, raised } = require('./errors');
const { jsonOf } = require('./result');

/** Returns whether an object streams: it has an asynchronous iterator, or is an iterator like a generator. */
function isStream(value) {
  return typeof value[Symbol.asyncIterator] === 'function' ||
    (typeof value.next === 'function' && typeof value[Symbol.iterator] === 'function');
}

/** Makes a Stream of an object for which isStream is true. */
function streamOf(value) {
  try {
    // return() of a web stream's own iterator would wait for the next chunk.
    if (typeof value.getReader === 'function') return new Stream(readerOf(value));
    return new Stream(typeof value[Symbol.asyncIterator] === 'function' ? value[Symbol.asyncIterator]() : value);
  } catch (e) {
    throw raised(500, 'raised', e);
  }
}

/** Returns an iterator over a web stream. */
function readerOf(stream) {
  const reader = stream.getReader();
  return { next: () => reader.read(), return: () => reader.cancel() };
}

const END = Symbol('the iterator is at its end');

/** An iterator, and how its items are sent. */
class Stream {
  #iterator;
  #head; // of the answer, except its framing; if there is none, the first item decides
  #encode = bytesOf; // renders an item as text or bytes
  #closed = false; // the iterator ended by itself

  constructor(iterator, head = null) {
    this.#iterator = iterator;
    this.#head = head;
  }

  /**
   * Sends everything but the end, and returns the end when nothing of the function
   * runs any more. Throws a Failure for an error before the head is sent. A later
   * error goes to the log, and its code into the end.
   */
  async send(connection) {
    let code = '';
    try {
      for (;;) {
        const item = await connection.whileHeard(() => this.#next());
        if (item === undefined) code = 'cancelled';
        if (item === undefined || item === END) break;
        if (this.#head === null) this.#choose(item.value);
        const parts = chunk(this.#encode(item.value));
        if (!connection.begun) parts.unshift(this.#begin(connection));
        if (parts.length > 0) await connection.whileHeard(() => connection.put(parts));
      }
    } catch (e) {
      const failure = raised(500, 'raised', e);
      if (!connection.begun) throw failure;
      ({ code } = failure);
      const { traceback, message } = failure.document.error;
      console.error(traceback?.trimEnd() ?? `${code}: ${message}`);
    } finally {
      if (!this.#closed) await this.#close();
    }
    if (code === 'cancelled') connection.last = true;
    const end = `0\r\n${code === '' ? '' : `Fob-Error: ${code}\r\n`}${connection.usage()}\r\n`;
    if (connection.begun) return end;
    if (this.#head === null) this.#choose(END);
    return Buffer.concat([this.#begin(connection), Buffer.from(end)]);
  }

  /** Returns the iterator's next result, or END. */
  async #next() {
    try {
      const item = await this.#iterator.next();
      if (!item.done) return item;
      this.#closed = true;
      return END;
    } catch (e) {
      this.#closed = true;
      throw raised(500, 'raised', e);
    }
  }

  async #close() {
    try {
      await this.#iterator.return?.();
    } catch (e) {
      console.error(describe(e).traceback.trimEnd());
    }
  }

  #choose(first) {
    let type = 'application/x-ndjson';
    if (typeof first === 'string') type = 'text/plain; charset=utf-8';
    else if (types.isUint8Array(first)) type = 'application/octet-stream';
    else this.#encode = (item) => jsonOf(item) + '\n';
    this.#head = `HTTP/1.1 200 OK\r\nContent-Type: ${type}\r\n`;
  }

  #begin(connection) {
    return connection.beginStream(Buffer.from(`${this.#head}Transfer-Encoding: chunked\r\n\r\n`, 'latin1'));
  }
}

function bytesOf(item) {
  if (typeof item === 'string' || types.isUint8Array(item)) return item;
  const kind = item?.constructor?.name ?? String(item);
  throw new Failure(500, 'bad_result', `callme's stream is of text or bytes, and then it gave ${kind}`);
}

/** Frames text or bytes as a chunk. It drops empty ones, because an empty chunk would end the body. */
function chunk(data) {
  const text = typeof data === 'string';
  const size = text ? Buffer.byteLength(data) : data.length;
  if (size === 0) return [];
  const line = size.toString(16) + '\r\n';
  return text ? [`${line}${data}\r\n`] : [line, data, '\r\n'];
}

module.exports = { Stream, isStream, readerOf, streamOf };
