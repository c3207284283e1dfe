// Log lines of a function, or of one call.
import { useEffect, useRef, useState } from 'preact/hooks';
import { askJSON, query } from '../api.js';
import { Empty, Loading, Trouble } from '../parts.jsx';
import { clock, plural } from '../format.js';
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
  const live = useLines(once ? '' : '/api/logs' + query({ ...about, ...asked, follow: true }), small ? 100 : 2000, ndjson);
  // What was before is asked for once the stream is open, so that nothing is between them.
  const past = useLoad(async (signal) => {
    if (!once && !live.opened) return undefined;
    return (await askJSON('/api/logs' + query({ ...about, ...asked, limit: small ? 30 : 500 }), { signal, headers: { Accept: 'application/json' } })).logs;
  }, [about, asked, live.opened], once ? 3000 : 0);
  const error = past.error || live.error;
  const seen = new Set((past.data || []).map((l) => l.number));
  const lines = [...(past.data || []), ...live.lines.filter((l) => !seen.has(l.number))];
  const box = useRef(), stick = useRef(true);
  useEffect(() => {
    if (stick.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines.length]);
  if (missing(error)) return <Empty>This dispatcher keeps no log lines: it has no <code>/api/logs</code>.</Empty>;
  return (
    <>
      {!small && (
        <div class="tools">
          <input type="search" value={wanted.text} onInput={(e) => set({ ...wanted, text: e.target.value })} placeholder="Search the text, or member:value in JSON lines" aria-label="Search the log" />
          <label>Level <select value={wanted.level} onChange={(e) => set({ ...wanted, level: e.target.value })}><option value="">all</option>{levels.map((l) => <option>{l}</option>)}</select></label>
          <span class={live.live ? 'live' : 'faint'}>{live.live ? 'live' : 'not live'}</span>
        </div>
      )}
      <Trouble error={error} what="No log" />
      {!past.data && !error && <Loading />}
      {past.data && lines.length === 0 && <Empty>{asked.text || asked.level ? 'No line matches.' : once ? 'It printed nothing.' : 'Nothing was printed yet. New lines appear here.'}</Empty>}
      {lines.length > 0 && (
        <div class={small ? 'log small' : 'log'} ref={box} tabIndex={0} role="log" aria-label="log lines" onScroll={(e) => (stick.current = e.target.scrollHeight - e.target.scrollTop - e.target.clientHeight < 40)}>
          {lines.map((l, i) => (l.omitted ? <div key={'omitted ' + i} class="logline faint">{plural(l.omitted, 'line')} came too fast to be shown here</div> : (
            <div key={l.number} class={'logline ' + l.level}>
              {l.call && !once ? <a href={to(['call', l.call])} title={`call ${l.call}`}>{clock(l.time)}</a> : <span class="faint">{clock(l.time)}</span>}
              <span class="level">{l.level}</span>
              <span class="text">{l.dropped ? `${plural(l.dropped, 'line')} dropped here` : l.json === undefined ? visible(l.text) : JSON.stringify(l.json)}{l.more ? '…' : ''}</span>
            </div>
          )))}
        </div>
      )}
    </>
  );
}

// visible shows control characters as the symbols for them.
function visible(text = '') {
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f]/g, (c) => (c === '\x7f' ? '␡' : String.fromCharCode(0x2400 + c.charCodeAt(0))));
}
