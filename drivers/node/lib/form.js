'use strict';
// Parses forms: the fields and files of a body, in either of the two types that HTML has.

const { badRequest, charsetOf, decode, parameter } = require('./text');

const PARTS = 1000; // fields and files in a form
const HEADERS = 8 << 10; // bytes of a part's headers
const BOUNDARY = 70; // bytes, as RFC 2046 has it

/** A file that was sent with a form. Everything except the body is text from the caller, and not to be trusted. */
class File_ {
  constructor(name, filename, contentType, body) {
    this.name = name; // of the field
    this.filename = filename;
    this.contentType = contentType;
    this.body = body; // a Buffer
  }

  /** The file as text, decoded as Request.text is. */
  text() {
    return decode(this.body, charsetOf(this.contentType));
  }
}

/** Returns the names and values of a form, in order. Values are text or a File_. There are none if the body is not a form. */
function parse(contentType, body) {
  const kind = contentType.split(';', 1)[0].trim().toLowerCase();
  if (kind === 'application/x-www-form-urlencoded') return urlencoded(body, charsetOf(contentType) || 'utf-8');
  if (kind === 'multipart/form-data') return multipart(body, parameter(contentType, 'boundary') ?? '');
  return [];
}

function urlencoded(body, charset) {
  const pairs = [];
  let fields = 0;
  for (let from = 0; from <= body.length; fields++) {
    if (fields === PARTS) throw badRequest(`the form has more than ${PARTS} fields`);
    const found = body.indexOf('&', from);
    const end = found < 0 ? body.length : found;
    if (end > from) {
      const at = body.subarray(from, end).indexOf('=');
      const middle = at < 0 ? end : from + at;
      pairs.push([body.subarray(from, middle), body.subarray(middle + 1, end)].map((part) => decode(unescape(part, true), charset)));
    }
    from = end + 1;
  }
  return pairs;
}

/** Decodes percent escapes, and + as a blank if asked to. Malformed escapes stay as they are. */
function unescape(bytes, plus) {
  // Byte by byte, because a list of millions of escapes would fill the sandbox.
  const out = Buffer.allocUnsafe(bytes.length);
  let length = 0;
  for (let i = 0; i < bytes.length; i++) {
    let byte = bytes[i];
    if (byte === 0x25) {
      const [high, low] = [digit(bytes[i + 1]), digit(bytes[i + 2])];
      if (high >= 0 && low >= 0) {
        byte = high * 16 + low;
        i += 2;
      }
    } else if (byte === 0x2b && plus) {
      byte = 0x20;
    }
    out[length++] = byte;
  }
  return out.subarray(0, length);
}

/** Returns the value of a hexadecimal digit, or -1. */
function digit(byte) {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

function multipart(body, boundary) {
  if (boundary === '' || boundary.length > BOUNDARY) throw badRequest("the form's Content-Type names no proper boundary");
  const line = `--${boundary}`;
  const pairs = [];
  let count = 0;
  let [, begin] = delimiter(body, line, 0);
  while (begin !== null) {
    if (++count > PARTS) throw badRequest(`the form has more than ${PARTS} fields and files`);
    const head = partHead(body, begin);
    // The line break before a delimiter is part of the delimiter, even after the headers of an empty part.
    const [end, following] = delimiter(body, line, head.end - 2);
    const pair = field(head.headers, body.subarray(head.end, Math.max(end, head.end)));
    if (pair !== null) pairs.push(pair);
    begin = following;
  }
  return pairs;
}

/** Finds the next delimiter. Returns where the content before it ends and where the content after it begins, which is null after the last one. */
function delimiter(body, line, at) {
  const starts = (text, from) => body.toString('latin1', from, from + text.length) === text;
  let end = at === 0 && starts(line, 0) ? 0 : -1;
  let after = line.length;
  for (;;) {
    if (end < 0) {
      end = body.indexOf(`\r\n${line}`, at, 'latin1');
      if (end < 0) throw badRequest('the form ends before its last boundary');
      after = end + 2 + line.length;
    }
    if (starts('--', after)) return [end, null];
    while (body[after] === 32 || body[after] === 9) after++;
    if (starts('\r\n', after)) return [end, after + 2];
    at = end + 1; // the line only begins like a delimiter
    end = -1;
  }
}

/** Returns a part's headers, names in lower case, and where they end. */
function partHead(body, begin) {
  if (body[begin] === 13 && body[begin + 1] === 10) return { headers: {}, end: begin + 2 };
  const length = body.subarray(begin, begin + HEADERS).indexOf('\r\n\r\n');
  if (length < 0) throw badRequest('a part of the form has no proper headers, or more than 8 KB of them');
  const headers = Object.create(null);
  for (const header of decode(body.subarray(begin, begin + length), 'utf-8').split('\r\n')) {
    const colon = header.indexOf(':');
    if (colon < 0) throw badRequest('a part of the form has a malformed header');
    headers[header.slice(0, colon).trim().toLowerCase()] = header.slice(colon + 1).trim();
  }
  return { headers, end: begin + length + 4 };
}

/** Returns the name and value of a part, or null for a file input without a file. */
function field(headers, content) {
  const disposition = headers['content-disposition'] ?? '';
  const name = parameter(disposition, 'name');
  if (disposition.split(';', 1)[0].trim().toLowerCase() !== 'form-data' || name === undefined) {
    throw badRequest('a part of the form has no name: Content-Disposition is form-data; name=…');
  }
  if (!['7bit', '8bit', 'binary'].includes((headers['content-transfer-encoding'] ?? 'binary').toLowerCase())) {
    throw badRequest('a part of the form has a Content-Transfer-Encoding; send it as it is');
  }
  let filename = parameter(disposition, 'filename');
  if (filename !== undefined) filename = plain(filename);
  const extended = /^([^']*)'[^']*'(.*)$/s.exec(parameter(disposition, 'filename*') ?? '');
  if (extended !== null) filename = decode(unescape(Buffer.from(extended[2]), false), extended[1] || 'utf-8');
  const kind = headers['content-type'] ?? 'text/plain';
  if (filename === undefined) return [plain(name), decode(content, charsetOf(kind) || 'utf-8')];
  if (filename === '' && content.length === 0) return null;
  return [plain(name), new File_(plain(name), filename, kind, content)];
}

/** Undoes the escapes that browsers use in names, and nothing more. */
const plain = (text) => text.replaceAll('%22', '"').replaceAll('%0D', '\r').replaceAll('%0A', '\n');

/** Returns a form's values as arguments by name. A name that is repeated, or ends with [], has a list. */
function argumentsOf(contentType, body) {
  const args = new Map();
  for (const [name, value] of parse(contentType, body)) {
    const bare = name.endsWith('[]') ? name.slice(0, -2) : name;
    if (bare === '') throw badRequest('a field of the form has no name');
    const before = args.get(bare);
    if (Array.isArray(before)) before.push(value);
    else if (args.has(bare)) args.set(bare, [before, value]);
    else args.set(bare, bare === name ? value : [value]);
  }
  return args;
}

module.exports = { File: File_, argumentsOf, parse };
