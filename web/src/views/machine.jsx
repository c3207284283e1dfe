// The machine: sandboxes, pools, caps, queue, storage, the last changes, tokens.
import { askJSON, askText, query } from '../api.js';
import { Ago, Empty, Loading, Outcome, Time, Trouble } from '../parts.jsx';
import { bytes, digits } from '../format.js';
import { value } from '../metrics.js';
import { metrics } from '../traffic.js';
import { useLoad } from '../use.js';

export function Machine() {
  const build = useLoad((signal) => askJSON('/api/version', { signal }), [], 15000);
  const ready = useLoad((signal) => askJSON('/readyz', { signal }), [], 3000);
  return (
    <main tabIndex={-1}>
      <div class="title">
        <h1>Machine {ready.error ? <span class="badge bad">not ready</span> : ready.data && <span class="badge good">ready</span>}</h1>
        {build.data && <span class="about">{build.data.version} · {build.data.engine} · {build.data.go} · {build.data.commit}</span>}
      </div>
      <Trouble error={ready.error} what="Not ready" />
      <Gauges />
      <div class="columns">
        <Audit />
        <div>
          <Tokens />
          <Secrets />
        </div>
      </div>
    </main>
  );
}

function Gauges() {
  const all = metrics.value;
  if (all === undefined) return <Loading />;
  if (all === null) return <p class="trouble">The metrics need a token that may read all functions.</p>;
  const of = (name, labels) => value(all, name, labels);
  const sandboxes = (all.get('fob_sandboxes') || []).filter((s) => s.value > 0);
  const pools = all.get('fob_pool_size') || [];
  const waiting = of('fob_queue_depth') || 0;
  return (
    <>
      <div class="gauges">
        <Gauge title="Sandboxes" now={of('fob_sandboxes')} most={of('fob_sandboxes_limit')} format={digits} more={sandboxes.map((s) => `${digits(s.value)} ${s.labels.state}`).join(', ') || 'none'} />
        <Gauge title="Sandbox memory" now={of('fob_sandbox_memory_bytes')} most={of('fob_sandbox_memory_limit_bytes')} format={bytes} more="what the sandboxes may use together" />
        <Gauge title="Request buffers" now={of('fob_buffer_bytes')} most={of('fob_buffer_limit_bytes')} format={bytes} more="bodies, answers, connections" />
        <Gauge title="Calls in flight" now={of('fob_calls_in_flight')} format={digits} more={`${digits(waiting)} wait for a sandbox`} />
        {of('fob_data_size_bytes') > 0 && <Gauge title="Disk of the data folder" now={of('fob_data_size_bytes') - of('fob_data_free_bytes')} most={of('fob_data_size_bytes')} format={bytes} more={of('fob_storage_failed') ? 'The database has failed: nothing can be changed.' : `${bytes(of('fob_data_free_bytes'))} free`} />}
        {pools.map((s) => <Gauge key={s.labels.lang} title={`Pool of ${s.labels.lang}`} now={s.value} most={of('fob_pool_target', { lang: s.labels.lang })} format={digits} full="good" more={`dry ${digits(of('fob_pool_dry_total', { lang: s.labels.lang }) || 0)} times`} />)}
      </div>
      <section class="card">
        <h2>Since the start</h2>
        <dl class="facts wide">
          {[
            ['Started', all.has('fob_start_time_seconds') && <Ago at={new Date(1000 * of('fob_start_time_seconds')).toISOString()} />],
            ['Cold starts', (all.get('fob_cold_starts_total') || []).map((s) => `${digits(s.value)} ${s.labels.kind}`).join(', ') || '0'],
            ['Scaler', (all.get('fob_scaler_decisions_total') || []).map((s) => `${digits(s.value)} × ${s.labels.decision}`).join(', ') || 'nothing yet'],
            ['Evictions', digits(of('fob_evictions_total') || 0)],
            ['Engine failures', <Count n={of('fob_engine_errors_total') || 0} />],
            ['Stray answers', <Count n={of('fob_stray_answers_total') || 0} />],
            ['Calls not in the history', <Count n={of('fob_history_lost_total') || 0} />],
            ['Log lines lost', <Count n={(of('fob_logs_lost_total') || 0) + (of('fob_log_dropped_lines_total') || 0)} />],
            ['Audit failures', <Count n={of('fob_audit_failures_total') || 0} />],
          ].filter(([, v]) => v).map(([k, v]) => <div key={k}><dt>{k}</dt><dd>{v}</dd></div>)}
        </dl>
      </section>
    </>
  );
}

function Count({ n }) {
  return <span class={n ? 'bad' : ''}>{digits(n)}</span>;
}

// Gauge shows a number and how much of what there may be it is. full says whether much is
// good or bad.
function Gauge({ title, now, most, format, more, full = 'bad' }) {
  const share = most ? Math.min(1, now / most) : 0;
  const kind = full === 'good' ? (share >= 1 ? 'good' : 'warm') : share > 0.9 ? 'bad' : share > 0.75 ? 'warm' : 'good';
  return (
    <section class="card gauge">
      <h2>{title}</h2>
      <p class="big">{format(now)}{most > 0 && <span class="faint"> of {format(most)}</span>}</p>
      {most > 0 && <svg class={'meter ' + kind} viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="4" /><rect class="fill" width={share * 100} height="4" /></svg>}
      <p class="faint">{more}</p>
    </section>
  );
}

function Audit() {
  const { data, error } = useLoad(async (signal) => {
    const text = await askText('/api/audit' + query({ limit: 50 }), { signal });
    return text.split('\n').filter(Boolean).map((line) => JSON.parse(line)).reverse();
  }, [], 10000);
  return (
    <section class="card">
      <h2>Last changes</h2>
      <Trouble error={error} />
      {!data ? !error && <Loading /> : data.length === 0 ? <Empty>Nothing was changed yet.</Empty> : (
        <div class="scroll tall"><table>
          <thead><tr><th>When</th><th>What</th><th>Of</th><th>Who</th><th>Came to</th></tr></thead>
          <tbody>{data.map((e) => (
            <tr key={e.seq}><td class="nowrap"><Time at={e.time} /></td><td class="nowrap">{e.action}</td><td>{e.name || e.id || '–'}</td><td>{e.who}</td><td><Outcome outcome={e.outcome} />{e.omitted > 0 && <span class="faint"> and {e.omitted} more</span>}</td></tr>
          ))}</tbody>
        </table></div>
      )}
    </section>
  );
}

function Tokens() {
  const { data, error } = useLoad((signal) => askJSON('/api/tokens', { signal }), [], 30000);
  return (
    <section class="card">
      <h2>Tokens</h2>
      <Trouble error={error} />
      {!data ? !error && <Loading /> : data.tokens.length === 0 ? <Empty>There are none: whoever reaches this address may do everything. <code>dispatcher token create NAME --grant admin</code> makes the first.</Empty> : (
        <div class="scroll"><table>
          <thead><tr><th>Name</th><th>May</th><th>Until</th></tr></thead>
          <tbody>{data.tokens.map((t) => <tr key={t.id}><td>{t.name} <span class="id faint">{t.id}</span></td><td>{t.grants.join(', ')}</td><td class="nowrap">{t.expires ? <Time at={t.expires} /> : 'ever'}</td></tr>)}</tbody>
        </table></div>
      )}
    </section>
  );
}

function Secrets() {
  const { data, error } = useLoad((signal) => askJSON('/api/secrets', { signal }), [], 30000);
  return (
    <section class="card">
      <h2>Secrets</h2>
      <Trouble error={error} />
      {!data ? !error && <Loading /> : data.secrets.length === 0 ? <Empty>There are none.</Empty> : (
        <div class="scroll"><table>
          <thead><tr><th>Name</th><th>For</th><th>Changed</th></tr></thead>
          <tbody>{data.secrets.map((s) => <tr key={s.name}><td><code>{s.name}</code></td><td>{(s.functions || []).join(', ') || 'all functions'}</td><td class="nowrap"><Time at={s.updated} /></td></tr>)}</tbody>
        </table></div>
      )}
    </section>
  );
}
