// Log lines of a function, or of one call.
import { useEffect, useRef, useState } from 'preact/hooks';
import { askJSON, query } from '../api.js';
import { Empty, Loading, Trouble } from '../parts.jsx';
import { clock } from '../format.js';
import { to } from '../route.js';
import { useLines, useLoad } from '../use.js';

const levels = ['stdout', 'stderr', 'debug', 'info', 'warn', 'error'];
const ndjson = { Accept: 'application/x-ndjson' };

// missing reports whether the dispatcher has no log to show at all.
const missing = (error) => error?.code === 'unknown_route';

// Logs shows the newest lines about something, {function} or {call}, and those to come.
// small leaves out the search.
export function Logs({ about, small, once }) {
  const [wanted, set] = useState({ text: '', level: '' });
  const [asked, ask] = useState(wanted);
  useEffect(() => {
    const timer = setTimeout(() => ask(wanted), 300);
    return () => clearTimeout(timer);
  }, [wanted]);
  const past = useLoad(async (signal) => (await askJSON('/api/logs' + query({ ...about, ...asked, limit: small ? 30 : 500 }), { signal, headers: { Accept: 'application/json' } })).logs, [about, asked], once ? 2000 : 0);
  const ready = past.data && !once;
  const live = useLines(ready ? '/api/logs' + query({ ...about, ...asked, follow: true }) : '', small ? 100 : 2000, ndjson);
  const seen = new Set((past.data || []).map((l) => l.number));
  const lines = [...(past.data || []), ...(once ? [] : live.lines.filter((l) => !seen.has(l.number)))];
  const box = useRef(), stick = useRef(true);
  useEffect(() => {
    if (stick.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines.length]);
  if (missing(past.error)) return <Empty>This dispatcher keeps no log lines: it has no <code>/api/logs</code>.</Empty>;
  return (
    <>
      {!small && (
        <div class="tools">
          <input type="search" value={wanted.text} onInput={(e) => set({ ...wanted, text: e.target.value })} placeholder="Search the text, or member:value in JSON lines" aria-label="Search the log" />
          <label>Level <select value={wanted.level} onChange={(e) => set({ ...wanted, level: e.target.value })}><option value="">all</option>{levels.map((l) => <option>{l}</option>)}</select></label>
          {ready && <span class={live.open && !live.error ? 'live' : 'faint'}>{live.open && !live.error ? 'live' : 'not live'}</span>}
        </div>
      )}
      <Trouble error={past.error || live.error} what="No log" />
      {!past.data && !past.error && <Loading />}
      {past.data && lines.length === 0 && <Empty>{asked.text || asked.level ? 'No line matches.' : once ? 'It printed nothing.' : 'Nothing was printed yet. New lines appear here.'}</Empty>}
      {lines.length > 0 && (
        <div class={small ? 'log small' : 'log'} ref={box} tabIndex={0} role="log" aria-label="log lines" onScroll={(e) => (stick.current = e.target.scrollHeight - e.target.scrollTop - e.target.clientHeight < 40)}>
          {lines.map((l) => (
            <div key={l.number} class={'logline ' + l.level}>
              {l.call && !once ? <a href={to(['call', l.call])} title={`call ${l.call}`}>{clock(l.time)}</a> : <span class="faint">{clock(l.time)}</span>}
              <span class="level">{l.level}</span>
              <span class="text">{l.json === undefined ? visible(l.text) : JSON.stringify(l.json)}{l.more ? '…' : ''}</span>
            </div>
          ))}
        </div>
      )}
    </>
  );
}

// visible shows control characters as the symbols for them.
function visible(text = '') {
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f]/g, (c) => (c === '\x7f' ? '␡' : String.fromCharCode(0x2400 + c.charCodeAt(0))));
}
