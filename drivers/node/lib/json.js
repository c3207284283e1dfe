'use strict';
// JSON in. What goes out is in result.js.

const { badRequest } = require('./text');

/** Reads text as JSON; what is none is a bad_request. */
function parseJSON(text, what) {
  try {
    return JSON.parse(text);
  } catch (e) {
    throw badRequest(`${what} ${e instanceof RangeError ? 'is nested too deeply' : `is not JSON: ${e.message}`}`);
  }
}

/** Reads text as a JSON object; anything else is a bad_request. */
function parseObject(text, what) {
  const value = parseJSON(text, what);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw badRequest(`${what} must be a JSON object, not ${jsonType(value)}`);
  }
  return value;
}

const jsonType = (value) => (value === null ? 'null' : Array.isArray(value) ? 'an array' : `a ${typeof value}`);

const utf8 = new TextDecoder('utf-8', { fatal: true }); // leaves a byte order mark out

/** Reads a body as the text of JSON. */
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
