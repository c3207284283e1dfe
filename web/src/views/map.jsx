// Who calls whom, from the traces of recent calls.
import { useState } from 'preact/hooks';
import { Empty, Loading, Trouble } from '../parts.jsx';
import { nameOf, title } from '../functions.js';
import { plural } from '../format.js';
import { to } from '../route.js';
import { useLoad } from '../use.js';
import { allCalls } from './function.jsx';

export function Map() {
  const [since, set] = useState('1h');
  const { data, error } = useLoad((signal) => allCalls({ since }, 5, signal), [since], 30000);
  const graph = data && graphOf(data.calls);
  return (
    <main tabIndex={-1}>
      <div class="title"><h1>Who calls whom</h1><label>Since <select value={since} onChange={(e) => set(e.target.value)}><option value="10m">10 minutes</option><option value="1h">1 hour</option><option value="24h">24 hours</option></select></label></div>
      <Trouble error={error} />
      {!data && !error && <Loading />}
      {data && (graph.edges.length === 0 ? <Empty>No function called another in this time. The map shows calls whose <code>Traceparent</code> a function passed on.</Empty> : (
        <>
          <Drawing {...graph} />
          <section class="card">
            <h2>Edges</h2>
            <div class="scroll"><table>
              <thead><tr><th>From</th><th>To</th><th class="number">Calls</th><th class="number">Failed</th></tr></thead>
              <tbody>{graph.edges.map((e) => <tr><td><Node id={e.from} name={graph.names.get(e.from)} /></td><td><Node id={e.to} name={graph.names.get(e.to)} /></td><td class="number">{e.calls}</td><td class={'number ' + (e.failed ? 'bad' : '')}>{e.failed}</td></tr>)}</tbody>
            </table></div>
          </section>
        </>
      ))}
      {data && <p class="faint">From {plural(data.calls.length, 'call')}{data.whole ? '' : ', the newest'}.</p>}
    </main>
  );
}

function Node({ id, name }) {
  return id === outside ? 'outside' : <a href={to(['f', id])}>{name}</a>;
}

const outside = '';

// graphOf counts, for each pair of functions, how often one called the other. Callers
// that are no functions are one node, outside.
export function graphOf(calls) {
  const spans = new globalThis.Map(calls.filter((c) => c.span).map((c) => [c.trace + c.span, c]));
  const edges = new globalThis.Map(), names = new globalThis.Map();
  const inner = new Set();
  for (const call of calls) {
    if (!call.function) continue;
    const caller = call.parent && spans.get(call.trace + call.parent);
    const from = caller?.function ?? outside;
    names.set(call.function, nameOf(call.function) || title(call));
    const key = from + ' ' + call.function;
    const edge = edges.get(key) || { from, to: call.function, calls: 0, failed: 0 };
    edge.calls++;
    if (call.outcome !== 'ok') edge.failed++;
    edges.set(key, edge);
    if (from !== outside) inner.add(from).add(call.function);
  }
  // Functions that call nobody and that nobody calls are of no interest here.
  const list = [...edges.values()].filter((e) => inner.has(e.to)).sort((a, b) => b.failed - a.failed || b.calls - a.calls);
  return { edges: list, names };
}

const wide = 190, high = 44, gapX = 90, gapY = 18;

// layers puts each node one column to the right of the leftmost that calls it.
function layers(edges) {
  const depth = new globalThis.Map();
  const visit = (id, at, path) => {
    if (path.has(id) || (depth.get(id) ?? -1) >= at) return; // a circle, or known to be further right
    depth.set(id, at);
    path.add(id);
    for (const e of edges) if (e.from === id) visit(e.to, at + 1, path);
    path.delete(id);
  };
  const called = new Set(edges.map((e) => e.to));
  for (const e of edges) if (!called.has(e.from)) visit(e.from, 0, new Set());
  for (const e of edges) if (!depth.has(e.from)) visit(e.from, 0, new Set());
  return depth;
}

function Drawing({ edges, names }) {
  const depth = layers(edges);
  const places = new globalThis.Map(), rows = [];
  for (const [id, column] of depth) {
    rows[column] = (rows[column] ?? -1) + 1;
    places.set(id, { x: column * (wide + gapX) + 8, y: rows[column] * (high + gapY) + 8 });
  }
  const width = rows.length * (wide + gapX) - gapX + 16, height = (Math.max(...rows.map((r) => r ?? 0)) + 1) * (high + gapY) + 8;
  const path = ({ from, to: target }) => {
    const a = places.get(from), b = places.get(target);
    const x1 = a.x + wide, y1 = a.y + high / 2, x2 = b.x, y2 = b.y + high / 2;
    if (x2 > x1) return `M${x1} ${y1}C${x1 + gapX / 2} ${y1} ${x2 - gapX / 2} ${y2} ${x2} ${y2}`;
    return `M${x1} ${y1}C${x1 + gapX} ${y1 + high} ${x2 - gapX} ${y2 + high} ${x2} ${y2}`; // backward
  };
  // middle is where the label of an edge stands.
  const middle = ({ from, to: target }) => {
    const a = places.get(from), b = places.get(target);
    return { x: (a.x + wide + b.x) / 2, y: (a.y + b.y + high) / 2 - 6 };
  };
  return (
    <div class="scroll card map">
      <svg width={width} height={height} viewBox={`0 0 ${width} ${height}`} aria-label="map of calls between functions; the table below says the same">
        {[...edges].reverse().map((e) => (
          <g class={e.failed ? 'edge failing' : 'edge'}>
            <path d={path(e)} stroke-width={1 + Math.min(4, Math.log10(e.calls + 1) * 1.5)}><title>{`${e.calls} calls, ${e.failed} failed`}</title></path>
            <text {...middle(e)} text-anchor="middle">{e.failed ? `${e.failed} of ${e.calls}` : e.calls}</text>
            <circle cx={places.get(e.to).x} cy={places.get(e.to).y + high / 2} r="4" />
          </g>
        ))}
        {[...places].map(([id, p]) => (
          <g class="node" transform={`translate(${p.x} ${p.y})`}>
            <rect width={wide} height={high} rx="8" class={id === outside ? 'outside' : ''} />
            {id === outside ? <text x="14" y="27">outside</text> : <a href={to(['f', id])}><text x="14" y="27">{short(names.get(id) || id)}</text></a>}
          </g>
        ))}
      </svg>
    </div>
  );
}

function short(name) {
  return name.length > 22 ? name.slice(0, 21) + '…' : name;
}
