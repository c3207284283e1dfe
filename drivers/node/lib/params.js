'use strict';
// Reads a function's parameters from its source, because JavaScript has no other way.

/**
 * Returns the parameters of a function, in order:
 * {name, optional, list}, {rest: true}, {keys: [{name, optional, list}], catchesAll, optional} for an object pattern,
 * or {} for a parameter without a name. list says that the default is a list, as in tags = [].
 */
function parametersOf(fn) {
  return split(parameterList(Function.prototype.toString.call(fn))).map(parameter);
}

function parameterList(source) {
  let i = skipBlank(source, 0);
  const lone = /^(?:async(?=[\s/]))?/.exec(source.slice(i));
  const afterAsync = skipBlank(source, i + lone[0].length);
  // An arrow function without parentheses: x => …, async x => …
  for (const start of [i, afterAsync]) {
    const word = /^[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*/u.exec(source.slice(start));
    if (word && source.startsWith('=>', skipBlank(source, start + word[0].length))) return word[0];
  }
  // A method may have a computed name, which may contain parentheses.
  while (i < source.length && source[i] !== '(') {
    i = source[i] === '[' ? skipOne(source, i) : skipOne(source, i, true);
  }
  return source.slice(i + 1, skipOne(source, i) - 1);
}

/** Splits at commas outside brackets, texts and comments. */
function split(list) {
  const parts = [];
  let from = 0;
  let before = '';
  for (let i = 0; i < list.length;) {
    if (list[i] === ',') {
      parts.push(list.slice(from, i));
      from = ++i;
      before = '';
    } else {
      const next = skipOne(list, i, false, before);
      if (!/\s/.test(list[i]) && !isComment(list, i)) before = list.slice(i, next);
      i = next;
    }
  }
  parts.push(list.slice(from));
  return parts.map(uncomment).filter((part) => part !== '');
}

function parameter(text) {
  if (text.startsWith('...')) return { rest: true };
  const [target, optional, list] = cutDefault(text);
  if (!target.startsWith('{')) return target.startsWith('[') ? {} : { name: unescape(target), optional, list };
  const keys = [];
  let catchesAll = false;
  for (const member of split(target.slice(1, -1))) {
    if (member.startsWith('...')) {
      catchesAll = true;
      continue;
    }
    const equals = find(member, '=');
    let colon = find(member, ':');
    if (equals >= 0 && colon > equals) colon = -1; // it belongs to the default
    const [key, ...short] = cutDefault(member);
    const name = colon < 0 ? key : uncomment(member.slice(0, colon));
    if (name.startsWith('[')) continue; // computed, so unknown until it runs
    const value = colon < 0 ? '' : uncomment(member.slice(colon + 1));
    const [optional, isList] = colon < 0 ? short : cutDefault(value).slice(1);
    keys.push({ name: memberName(name), optional, list: isList });
  }
  return { keys, catchesAll, optional };
}

function memberName(text) {
  if (text[0] === '"' || text[0] === "'") return evaluate(text);
  return unescape(text);
}

// Evaluates a string or name as the engine does. The engine has parsed it before.
const evaluate = (text) => Function(`return ${text}`)();
const unescape = (name) => (name.includes('\\') ? Object.keys(evaluate(`({${name}: 0})`))[0] : name);

/** Returns a binding without its default, whether it has a default, and whether the default is a list. */
function cutDefault(text) {
  const at = find(text, '=');
  return at < 0 ? [text, false, false] : [uncomment(text.slice(0, at)), true, text[skipBlank(text, at + 1)] === '['];
}

/** Returns where a character stands outside brackets, texts and comments. */
function find(text, character) {
  for (let i = 0; i < text.length; i = skipOne(text, i)) {
    if (text[i] === character) return i;
  }
  return -1;
}

const isComment = (s, i) => s[i] === '/' && (s[i + 1] === '/' || s[i + 1] === '*');

/** Removes blanks and comments from both ends, and from within a bare name. */
function uncomment(text) {
  let from = skipBlank(text, 0);
  let out = '';
  while (from < text.length) {
    const next = skipOne(text, from);
    out += isComment(text, from) ? ' ' : text.slice(from, next);
    from = next;
  }
  return out.trim();
}

function skipBlank(s, i) {
  while (i < s.length) {
    if (/\s/.test(s[i])) i++;
    else if (isComment(s, i)) i = skipOne(s, i);
    else break;
  }
  return i;
}

/**
 * Returns where the thing at i ends: a comment, text, template, regular expression, bracketed group,
 * or a single character. With flat an opening bracket is a single character. before is what came before i.
 */
function skipOne(s, i, flat = false, before = '') {
  const c = s[i];
  if (c === '/' && s[i + 1] === '/') {
    const end = s.slice(i).search(/[\n\r\u2028\u2029]/);
    return end < 0 ? s.length : i + end + 1;
  }
  if (c === '/' && s[i + 1] === '*') return s.indexOf('*/', i + 2) + 2;
  if (c === '/' && regexpMayStart(before)) return skipRegexp(s, i);
  if (c === '"' || c === "'" || c === '`') return skipText(s, i);
  if (!flat && (c === '(' || c === '[' || c === '{')) return skipGroup(s, i);
  return i + 1;
}

function skipGroup(s, i) {
  let before = s[i++];
  while (i < s.length && !')]}'.includes(s[i])) {
    const next = skipOne(s, i, false, before);
    if (!/\s/.test(s[i]) && !isComment(s, i)) before = s.slice(i, next);
    i = next;
  }
  return i + 1;
}

// After a value, / divides; after an operator or the beginning, it opens an expression.
const regexpMayStart = (before) => before === '' || /[=(,:[!&|?{};+\-*%<>~^]$/.test(before);

function skipText(s, i) {
  const quote = s[i++];
  while (i < s.length && s[i] !== quote) {
    if (s[i] === '\\') i += 2;
    else if (quote === '`' && s[i] === '$' && s[i + 1] === '{') i = skipGroup(s, i + 1);
    else i++;
  }
  return i + 1;
}

function skipRegexp(s, i) {
  let inClass = false;
  for (i++; i < s.length && (inClass || s[i] !== '/'); i++) {
    if (s[i] === '\\') i++;
    else if (s[i] === '[') inClass = true;
    else if (s[i] === ']') inClass = false;
  }
  return i + 1;
}

module.exports = { parametersOf };
