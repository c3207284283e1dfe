// Small things that several views show.
import { useEffect, useRef, useState } from 'preact/hooks';
import { ago, clock, ms } from './format.js';
import { title } from './functions.js';
import { to } from './route.js';

// Sparkline draws values as a small area over a faint base. null, and what stays 0, leaves
// a gap.
export function Sparkline({ values, kind, label, width = 96, height = 24 }) {
  const most = Math.max(0, ...values.map((v) => v || 0));
  const step = width / Math.max(1, values.length - 1);
  const y = (v) => (height - 1 - (v / most) * (height - 3)).toFixed(1);
  const gap = (i) => !values[i] && (values[i] === null || (!values[i - 1] && !values[i + 1]));
  let line = '', area = '', begun = null;
  for (let i = 0; i <= values.length; i++) {
    const x = (i * step).toFixed(1);
    if (i === values.length || gap(i)) {
      if (begun !== null) area += `L${((i - 1) * step).toFixed(1)} ${height}H${begun}Z`;
      begun = null;
    } else if (begun === null) {
      line += `M${x} ${y(values[i])}h.1`;
      area += `M${(begun = x)} ${y(values[i])}`;
    } else {
      line += `L${x} ${y(values[i])}`;
      area += `L${x} ${y(values[i])}`;
    }
  }
  return (
    <svg class={'spark ' + kind} viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label={label}>
      <path class="base" d={`M0 ${height - 0.5}H${width}`} />
      {most > 0 && <><path class="area" d={area} /><path class="line" d={line} /></>}
    </svg>
  );
}

export function Outcome({ outcome }) {
  return <span class={'badge ' + (outcome === 'ok' ? 'good' : outcome === 'cancelled' ? 'plain' : 'bad')}>{outcome}</span>;
}

export function Time({ at }) {
  return <time dateTime={at} title={new Date(at).toISOString()}>{clock(at)}</time>;
}

export function FunctionLink({ id, name, version }) {
  return <a href={to(['f', id || name])}>{title({ name, id })}{version ? <span class="faint">@{version}</span> : null}</a>;
}

// Trouble says why something cannot be shown.
export function Trouble({ error, what }) {
  if (!error) return null;
  const why = error.status === 403 ? 'The token does not allow it.' : error.message;
  return <p class="trouble" role="alert">{what ? what + ': ' : ''}{why}</p>;
}

export function Empty({ children }) {
  return <p class="empty">{children}</p>;
}

export function Loading() {
  return <p class="empty" aria-busy="true">Loading…</p>;
}

// CopyLine shows a command and copies it.
export function CopyLine({ text, label }) {
  const [done, set] = useState(false);
  const code = useRef();
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      set(true);
      setTimeout(() => set(false), 1500);
    } catch {
      // Without TLS a page may not copy by itself; the user can.
      getSelection().selectAllChildren(code.current);
    }
  };
  return (
    <div class="copy">
      <code ref={code} tabIndex={0} aria-label={label}>{text}</code>
      <button type="button" onClick={copy}>{done ? 'Copied' : 'Copy'}</button>
    </div>
  );
}

// Marked shows text in which `…` is code.
export function Marked({ text }) {
  return text.split('`').map((part, i) => (i % 2 ? <code>{part}</code> : part));
}

// CallTable lists calls. without leaves out a column that says the same in all rows.
export function CallTable({ calls, without = '' }) {
  return (
    <div class="scroll">
      <table class={without === 'function' ? 'calls ofone' : 'calls'}>
        <thead>
          <tr><th>When</th>{without !== 'function' && <th>Function</th>}<th>Outcome</th><th class="number">Ran</th><th>Error</th></tr>
        </thead>
        <tbody>
          {calls.map((call) => (
            <tr key={call.id + call.started}>
              <td class="nowrap when"><a href={to(['call', call.id])} title={call.id}><Time at={call.started} /></a></td>
              {without !== 'function' && <td class="nowrap of">{call.function ? <FunctionLink id={call.function} name={call.name} version={call.version} /> : '–'}</td>}
              <td class="outcome"><Outcome outcome={call.outcome} /></td>
              <td class="number nowrap ran">{ms(call.timing.run)}</td>
              <td class="error">{call.error ? `${call.error.type ? call.error.type + ': ' : ''}${call.error.message}` : ''}{without === 'function' && call.version ? <span class="faint"> @{call.version}</span> : null}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

// Ago says how long ago a time was, and goes on to be right.
export function Ago({ at }) {
  const [, set] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => set((n) => n + 1), 5000);
    return () => clearInterval(timer);
  }, []);
  return <time dateTime={at} title={clock(at)}>{ago(at)}</time>;
}
