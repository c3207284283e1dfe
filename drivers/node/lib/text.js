'use strict';
// Decodes text as its sender says, or as its byte order mark says.

const { Failure } = require('./errors');

const MARKS = [['utf-8', [0xef, 0xbb, 0xbf]], ['utf-16le', [0xff, 0xfe]], ['utf-16be', [0xfe, 0xff]]];
// TextDecoder takes Latin-1 and ASCII for windows-1252, and in some versions of Node windows-1252 for Latin-1.
const LATIN1 = new Set(['iso-8859-1', 'iso8859-1', 'iso_8859-1', 'latin1', 'latin-1', 'l1']);
const ASCII = new Set(['us-ascii', 'ascii']);

const WINDOWS1252 = new Set(['windows-1252', 'cp1252', 'x-cp1252']);
const HIGH = '€\0‚ƒ„…†‡ˆ‰Š‹Œ\0Ž\0\0‘’“”•–—˜™š›œ\0žŸ'; // from 0x80 on there; NUL for none

const badRequest = (message) => new Failure(400, 'bad_request', message);

/** Decodes bytes, and drops a byte order mark. If that is impossible, it is a bad_request. */
function decode(bytes, charset = '') {
  const label = charset.trim().toLowerCase();
  const wrong = () => badRequest(`the text is not ${charset.slice(0, 80) || 'UTF-8, and no charset is given'}`);
  if (LATIN1.has(label)) return bytes.latin1Slice();
  if (ASCII.has(label)) {
    if (bytes.some((byte) => byte > 0x7f)) throw wrong();
    return bytes.latin1Slice();
  }
  if (WINDOWS1252.has(label)) {
    const units = Uint16Array.from(bytes);
    for (let i = 0; i < units.length; i++) {
      if (units[i] < 0x80 || units[i] > 0x9f) continue;
      units[i] = HIGH.charCodeAt(units[i] - 0x80);
      if (units[i] === 0) throw wrong();
    }
    return Buffer.from(units.buffer).toString('utf16le');
  }
  let name = { '': 'utf-8', utf8: 'utf-8', 'utf-16': 'utf-16' }[label] ?? label;
  for (const [marked, mark] of MARKS) {
    if ((label === '' || marked.startsWith(name)) && mark.every((byte, i) => bytes[i] === byte)) {
      name = marked;
      bytes = bytes.subarray(mark.length);
      break;
    }
  }
  let decoder;
  try {
    decoder = new TextDecoder(name, { fatal: true, ignoreBOM: true });
  } catch {
    throw badRequest(`the charset ${JSON.stringify(charset.slice(0, 80))} is unknown`);
  }
  try {
    return decoder.decode(bytes);
  } catch {
    throw wrong();
  }
}

/** Returns a parameter of a header such as Content-Type, or undefined. */
function parameter(header, name) {
  for (const [, key, quoted, bare] of header.matchAll(/;\s*([^\s;="]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))/g)) {
    // Nothing else is escaped: old browsers send paths with backslashes.
    if (key.toLowerCase() === name) return quoted?.replaceAll('\\"', '"').replaceAll('\\\\', '\\') ?? bare;
  }
  return undefined;
}

const charsetOf = (contentType) => parameter(contentType, 'charset') ?? '';

module.exports = { badRequest, charsetOf, decode, parameter };
