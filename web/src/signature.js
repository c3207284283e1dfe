// Finds the parameters of callme in a function's code. It reads text, and does not run
// it, so what it cannot read it leaves to the form's JSON.

// parameters returns a list of {name, type, preset, rest}, or undefined if callme is not
// to be found. type is an annotation, preset the default's text.
export function parameters(code, lang) {
  return lang === 'node' ? ofNode(code) : ofPython(code);
}

function ofPython(code) {
  const begin = /^[ \t]*(?:async[ \t]+)?def[ \t]+callme[ \t]*\(/m.exec(code);
  if (!begin) return undefined;
  const all = [];
  for (let part of split(code, begin.index + begin[0].length, '#')) {
    part = part.trim();
    if (part === '*' || part === '/' || part === '') continue;
    const m = /^(\*{0,2})([^\s:=*]+)\s*(?::\s*([^=]*?))?\s*(?:=\s*([\s\S]*))?$/.exec(part);
    if (m) all.push({ name: m[2], type: m[3] || '', preset: m[4], rest: m[1] !== '' });
  }
  return all;
}

function ofNode(code) {
  const begin = /\bcallme\s*(?:=|:)?\s*(?:async\s*)?(?:function\s*\*?\s*\w*\s*)?\(|\bexport\s+default\s+(?:async\s+)?function\s*\w*\s*\(|\bmodule\.exports\s*=\s*(?:async\s*)?(?:function\s*\w*\s*)?\(/.exec(code);
  if (!begin) return undefined;
  const all = [];
  const add = (part) => {
    part = part.trim();
    if (part === '') return;
    if (part.startsWith('{')) {
      for (const inner of split(part, 1, '//')) add(inner);
      return;
    }
    const m = /^(\.{3})?([^\s=:]+)\s*(?::\s*[^=]+)?(?:=\s*([\s\S]*))?$/.exec(part);
    if (m) all.push({ name: m[2], type: '', preset: m[3], rest: Boolean(m[1]) });
  };
  for (const part of split(code, begin.index + begin[0].length, '//')) add(part);
  return all;
}

// split returns what stands between commas, up to the bracket that closes the one before
// at.
function split(code, at, comment) {
  const parts = [];
  let depth = 0, part = '';
  for (; at < code.length; at++) {
    const c = code[at];
    if (code.startsWith(comment, at)) {
      while (at < code.length && code[at] !== '\n') at++;
      continue;
    }
    if (c === '"' || c === "'" || c === '`') {
      const begin = at;
      for (at++; at < code.length && code[at] !== c; at++) if (code[at] === '\\') at++;
      part += code.slice(begin, at + 1);
      continue;
    }
    if ('([{'.includes(c)) depth++;
    if (')]}'.includes(c) && depth-- === 0) break;
    if (c === ',' && depth === 0) {
      parts.push(part);
      part = '';
    } else part += c;
  }
  return [...parts, part];
}

// argument makes of a field's text what the call sends: JSON if it is some, and text
// otherwise, and always if the parameter wants it.
export function argument(text, type = '') {
  if (/^str\b/.test(type)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
