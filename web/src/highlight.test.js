import assert from 'node:assert';
import { test } from 'node:test';
import { highlight } from './highlight.js';

const plain = (lines) => lines.map((pieces) => pieces.map((p) => p.text).join('')).join('\n');

test('colours change no character of any code', () => {
  for (const code of ['', '\n', 'def callme(a): # <b>\n  return f"""x\ny""" + \'z\'\n', "const a = `x${1}\n` // end\n/* open", '"unfinished\nx = 0x1f\r\n\t€', "'\\"]) {
    for (const lang of ['python', 'node', 'other']) assert.equal(plain(highlight(code, lang)), code);
  }
});

test('what is in a comment or a string is no key word', () => {
  const [line] = highlight('return "if" # for', 'python');
  assert.deepEqual(line.map((p) => p.kind), ['word', '', 'string', '', 'comment']);
});
