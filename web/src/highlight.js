// Colours code: comments, strings, numbers and key words, and nothing more.
const words = {
  python: 'False None True and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or pass raise return try while with yield match case',
  node: 'async await break case catch class const continue debugger default delete do else export extends false finally for from function if import in instanceof let new null of return static super switch this throw true try typeof undefined var void while with yield',
};
const patterns = {
  python: /(#[^\n]*)|([rbfuRBFU]{0,2}(?:"""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?))|\b(\d[\w.]*)|([A-Za-z_]\w*)/g,
  node: /(\/\/[^\n]*|\/\*[\s\S]*?(?:\*\/|$))|(`(?:[^`\\]|\\[\s\S])*`?|"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?)|\b(\d[\w.]*)|([A-Za-z_$][\w$]*)/g,
};
const keywords = Object.fromEntries(Object.entries(words).map(([lang, list]) => [lang, new Set(list.split(' '))]));

// highlight returns, for each line, a list of {kind, text}. kind is '' for plain text.
export function highlight(code, lang) {
  const lines = [[]];
  const add = (kind, text) => {
    text.split('\n').forEach((piece, i) => {
      if (i) lines.push([]);
      if (piece) lines[lines.length - 1].push({ kind, text: piece });
    });
  };
  let at = 0;
  for (const m of code.matchAll(patterns[lang] || patterns.node)) {
    if (m.index > at) add('', code.slice(at, m.index));
    const kind = m[1] ? 'comment' : m[2] ? 'string' : m[3] ? 'digit' : (keywords[lang] || keywords.node).has(m[4]) ? 'word' : '';
    add(kind, m[0]);
    at = m.index + m[0].length;
  }
  add('', code.slice(at));
  return lines;
}
