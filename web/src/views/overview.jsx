// What a function did: charts, its last failures, its sandboxes.
import { useMemo, useState } from 'preact/hooks';
import { askJSON, query, ref } from '../api.js';
import { Chart } from '../chart.jsx';
import { Ago, CallTable, Empty, Loading, Trouble } from '../parts.jsx';
import { digits, ms, percent, plural } from '../format.js';
import { to } from '../route.js';
import { reasonOf, sandboxesOf } from '../sandboxes.js';
import { frameLength, metrics, outcomesOf, tick } from '../traffic.js';
import { useLoad } from '../use.js';
import { allCalls } from './function.jsx';
import { Logs } from './logs.jsx';

const ranges = { '10m': 10, '1h': 60, '24h': 1440, '7d': 10080 };
const slots = 60;

export function Overview({ fn }) {
  const [range, set] = useState('1h');
  const { data, error } = useLoad((signal) => allCalls({ function: fn.id, since: range === '7d' ? '168h' : range }, 3, signal), [fn.id, range], range === '10m' ? 10000 : 30000);
  return (
    <>
      <div class="tools">
        <fieldset class="choice">
          <legend class="hidden">Time</legend>
          {Object.keys(ranges).map((r) => <label><input type="radio" name="range" checked={r === range} onChange={() => set(r)} /><span>{r}</span></label>)}
        </fieldset>
        {data && <Summary data={data} />}
      </div>
      <Trouble error={error} what="No calls can be shown" />
      {data && <Charts fn={fn} data={data} minutes={ranges[range]} />}
      <div class="columns">
        <Failures fn={fn} />
        <Sandboxes fn={fn} />
      </div>
      <section class="card">
        <div class="cardhead"><h2>Live log</h2><a href={to(['f', fn.name || fn.id, 'logs'])}>Whole log</a></div>
        <Logs about={{ function: fn.id }} small />
      </section>
    </>
  );
}

function Summary({ data }) {
  const failed = data.calls.filter((c) => c.outcome !== 'ok').length;
  const runs = data.calls.filter((c) => c.version).map((c) => c.timing.run).sort((a, b) => a - b);
  const at = (q) => (runs.length ? ms(runs[Math.min(runs.length - 1, Math.floor(q * runs.length))]) : '–');
  return (
    <p class="summary">
      <b>{data.calls.length.toLocaleString('en')}</b>{data.whole ? '' : '+'} calls · <b class={failed ? 'bad' : ''}>{failed}</b> failed ({percent(failed / (data.calls.length || 1))}) · p50 <b>{at(0.5)}</b> · p95 <b>{at(0.95)}</b>
      {data.omitted > 0 && ` · ${data.omitted} sampled out`}
    </p>
  );
}

// Charts divides the time into slots. Of very many calls only the newest were read, and
// the charts begin with the oldest of those.
function Charts({ fn, data, minutes }) {
  const drawn = useMemo(() => {
    const now = Date.now();
    const ended = (c) => Date.parse(c.started);
    const from = data.whole || data.calls.length === 0 ? now - minutes * 60000 : ended(data.calls[data.calls.length - 1]);
    const length = Math.max(1000, (now - from) / slots);
    const all = Array.from({ length: slots }, () => []);
    for (const call of data.calls) {
      const at = Math.floor((ended(call) - from) / length);
      if (all[at]) all[at].push(call);
    }
    return { all, from, length, times: all.map((_, i) => from + (i + 0.5) * length) };
  }, [data, minutes]);
  // The metrics know better when there are more calls than can be read.
  const busy = !data.whole && minutes === 10 && metrics.value ? outcomesOf(fn.id) : undefined;
  tick.value;
  const outcomes = stack(busy ? busy.map((f) => f.outcomes) : drawn.all.map(count));
  const middle = (calls, pick) => {
    if (calls.length === 0) return null;
    const sorted = calls.map(pick).sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length * 0.95)];
  };
  const ran = drawn.all.map((calls) => calls.filter((c) => c.version));
  const phase = (name, color) => ({ label: name, color, values: ran.map((calls) => middle(calls, (c) => c.timing[name])) });
  const boxes = sandboxesOf(fn.id);
  return (
    <div class="charts">
      <section class="card">
        <h2>Calls by outcome</h2>
        {!data.whole && !busy && <p class="faint">The newest {plural(data.calls.length, 'call')}; there are more.</p>}
        <Chart times={busy ? busy.map((f) => f.time) : drawn.times} series={outcomes} format={digits} label="calls by outcome over time" />
      </section>
      <section class="card">
        <h2>Latency by phase <span class="faint">p95</span></h2>
        <Chart times={drawn.times} series={[phase('run', 'accent'), phase('start', 'warm'), phase('queue', 'violet')]} format={ms} label="p95 of queue, start and run over time" />
      </section>
      {boxes && (
        <section class="card">
          <h2>Sandboxes {reasonOf(fn.id) && <span class="faint">{reasonOf(fn.id)}</span>}</h2>
          <Chart times={boxes.history.map((_, i) => Date.now() - (boxes.history.length - 1 - i) * frameLength)} format={digits} label="sandboxes wanted and had over time"
            series={[{ label: 'had', color: 'accent', values: boxes.history, steps: true }, { label: 'wanted', color: 'warm', values: boxes.wishes, steps: true }]} />
        </section>
      )}
    </div>
  );
}

function count(calls) {
  const by = {};
  for (const c of calls) by[c.outcome] = (by[c.outcome] || 0) + 1;
  return by;
}

// stack returns series of bars, each the sum of those below it: failures stand on top,
// and the largest sum is drawn first.
function stack(frames) {
  const names = [...new Set(frames.flatMap((f) => Object.keys(f)))].filter((n) => n !== 'ok').sort();
  const colors = ['red', 'warm', 'violet', 'pink', 'faint'];
  const order = ['ok', ...names];
  const series = order.map((name, i) => ({
    label: name, color: name === 'ok' ? 'accent' : name === 'cancelled' ? 'faint' : colors[Math.min(i - 1, colors.length - 1)], fill: true, bars: true,
    values: frames.map((f) => order.slice(0, i + 1).reduce((sum, n) => sum + (f[n] || 0), 0)),
    own: frames.map((f) => f[name] || 0),
  }));
  return series.reverse();
}

function Failures({ fn }) {
  const { data, error } = useLoad((signal) => askJSON('/api/calls' + query({ function: fn.id, outcome: 'failed', limit: 10 }), { signal }), [fn.id], 5000);
  return (
    <section class="card">
      <div class="cardhead"><h2>Last failures</h2><a href={to(['calls'], { function: fn.name || fn.id, outcome: 'failed' })}>All</a></div>
      <Trouble error={error} />
      {!data ? !error && <Loading /> : data.calls.length === 0 ? <Empty>No call has failed, as far back as the history goes.</Empty> : <CallTable calls={data.calls} without="function" />}
    </section>
  );
}

function Sandboxes({ fn }) {
  const { data, error } = useLoad((signal) => askJSON('/api/meta/' + ref(fn.id), { signal }), [fn.id], 3000);
  return (
    <section class="card">
      <h2>Sandboxes of version {fn.version.version}</h2>
      <Trouble error={error} />
      {!data ? !error && <Loading /> : data.sandboxes.length === 0 ? <Empty>None runs. The next call starts one.</Empty> : (
        <div class="scroll"><table>
          <thead><tr><th>ID</th><th>State</th><th class="number">In flight</th><th>Started</th></tr></thead>
          <tbody>{data.sandboxes.map((s) => <tr key={s.id}><td class="id">{s.id}</td><td>{s.state}</td><td class="number">{s.in_flight}</td><td><Ago at={s.started} /></td></tr>)}</tbody>
        </table></div>
      )}
    </section>
  );
}
