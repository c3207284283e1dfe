// Code to be read, and code to be changed.
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { highlight } from './highlight.js';

// Code shows code with numbered lines. around, if given, is a line to be marked; only the
// lines near it are shown then.
export function Code({ code, lang, line, around = Infinity }) {
  const lines = useMemo(() => highlight(code.replace(/\n$/, ''), lang), [code, lang]);
  const first = line ? Math.max(0, line - 1 - around) : 0;
  const shown = lines.slice(first, line ? line + around : undefined);
  return (
    <div class="code" tabIndex={0} role="region" aria-label="code">
      {shown.map((pieces, i) => (
        <div class={first + i + 1 === line ? 'line marked' : 'line'}>
          <span class="gutter" aria-hidden="true">{first + i + 1}</span>
          <span class="text"><Pieces pieces={pieces} />{'\n'}</span>
        </div>
      ))}
    </div>
  );
}

export function Pieces({ pieces }) {
  return pieces.map((p) => (p.kind ? <span class={p.kind}>{p.text}</span> : p.text));
}

// Editor is a text field over the same text in colours. error, if given, is {line,
// message}. Tab indents; Escape before it has Tab leave the field.
export function Editor({ code, lang, error, onInput, onDeploy, label }) {
  const field = useRef(), leave = useRef(false);
  const lines = useMemo(() => highlight(code, lang), [code, lang]);
  useEffect(() => {
    if (!error?.line) return;
    const at = code.split('\n').slice(0, error.line - 1).join('\n').length + (error.line > 1 ? 1 : 0);
    field.current.focus();
    field.current.setSelectionRange(at, at);
  }, [error]);
  const key = (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      onDeploy();
    } else if (event.key === 'Escape') leave.current = true;
    else if (event.key === 'Tab' && !event.shiftKey && !leave.current) {
      event.preventDefault();
      const f = event.target;
      f.setRangeText(lang === 'node' ? '  ' : '    ', f.selectionStart, f.selectionEnd, 'end');
      onInput(f.value);
    } else leave.current = false;
  };
  return (
    <div class="editor">
      <div class="scroller">
        <div class="painted" aria-hidden="true">
          {lines.map((pieces, i) => (
            <div class={error?.line === i + 1 ? 'line marked' : 'line'}>
              <span class="gutter">{i + 1}</span><span class="text"><Pieces pieces={pieces} />{'\n'}</span>
              {error?.line === i + 1 && <span class="note">{error.message}</span>}
            </div>
          ))}
        </div>
        <textarea ref={field} value={code} aria-label={label} spellcheck={false} autocapitalize="off" autocomplete="off" wrap="off"
          onInput={(event) => onInput(event.target.value)} onKeyDown={key} onBlur={() => (leave.current = false)} />
      </div>
    </div>
  );
}
