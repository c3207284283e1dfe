'use strict';
// Reads JSON. result.js writes it.

const { badRequest } = require('./text');

const MOST = 500000; // objects, arrays and members of objects in a document, each of which takes up to 100 bytes

/** Parses text as JSON. Text that is not JSON, or would fill a sandbox, is a bad_request. */
function parseJSON(text, what) {
  if (text.length > MOST && crowded(text)) throw badRequest(`${what} has more than ${MOST} objects, arrays and members of objects`);
  try {
    return JSON.parse(text);
  } catch (e) {
    throw badRequest(`${what} ${e instanceof RangeError ? 'is nested too deeply' : `is not JSON: ${e.message}`}`);
  }
}

/** Returns whether JSON has more than MOST things in it that take memory beyond its text. Characters in strings do not count. */
function crowded(text) {
  let found = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x22) {
      for (i++; i < text.length; i++) {
        const inside = text.charCodeAt(i);
        if (inside === 0x22) break;
        if (inside === 0x5c) i++;
      }
    } else if (c === 0x7b || c === 0x5b || c === 0x3a) { // { [ :
      found++;
      if (found > MOST) return true;
    }
  }
  return false;
}

/** Parses text as a JSON object. Anything else is a bad_request. */
function parseObject(text, what) {
  const value = parseJSON(text, what);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw badRequest(`${what} must be a JSON object, not ${jsonType(value)}`);
  }
  return value;
}

const jsonType = (value) => (value === null ? 'null' : Array.isArray(value) ? 'an array' : `a ${typeof value}`);

const utf8 = new TextDecoder('utf-8', { fatal: true }); // drops a byte order mark

/** Decodes a body that is JSON. */
function jsonText(bytes) {
  const [a, b] = bytes;
  if ((a === 0xff && b === 0xfe) || (a === 0xfe && b === 0xff) || (bytes.length > 1 && (a === 0) !== (b === 0))) {
    throw badRequest('the body is not JSON: it is UTF-16, and JSON is sent as UTF-8');
  }
  try {
    return utf8.decode(bytes);
  } catch {
    throw badRequest('the body is not UTF-8');
  }
}

module.exports = { jsonText, jsonType, parseJSON, parseObject };
