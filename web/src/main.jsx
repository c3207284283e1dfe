// The page: its head, and the view that the address names.
import 'uplot/dist/uPlot.min.css';
import './page.css';
import { render } from 'preact';
import { useEffect } from 'preact/hooks';
import { away, epoch, setToken, token, tokenNeeded } from './api.js';
import { watchFunctions } from './functions.js';
import { route, to } from './route.js';
import { watch } from './traffic.js';
import { TokenForm } from './token.jsx';
import { Functions } from './views/functions.jsx';
import { Function } from './views/function.jsx';
import { Call } from './views/call.jsx';
import { Calls } from './views/calls.jsx';
import { Machine } from './views/machine.jsx';
import { New } from './views/new.jsx';
import { Map } from './views/map.jsx';

const tabs = [
  { name: 'Functions', parts: [], of: ['', 'f', 'new'] },
  { name: 'Calls', parts: ['calls'], of: ['calls', 'call'] },
  { name: 'Map', parts: ['map'], of: ['map'] },
  { name: 'Machine', parts: ['machine'], of: ['machine'] },
];

function View() {
  const { parts: [kind = '', name, tab], query } = route.value;
  switch (kind) {
    case '': return <Functions />;
    case 'f': return <Function key={name} name={name} tab={tab} query={query} />;
    case 'new': return <New />;
    case 'calls': return <Calls query={query} />;
    case 'call': return <Call key={name} id={name} />;
    case 'map': return <Map />;
    case 'machine': return <Machine />;
  }
  return <main><h1>There is nothing here</h1><p><a href="#/">All functions</a></p></main>;
}

function Page() {
  const since = epoch.value, blocked = tokenNeeded.value !== '';
  useEffect(() => {
    if (blocked) return;
    const ends = new AbortController();
    watch(ends.signal);
    watchFunctions(ends.signal);
    return () => ends.abort();
  }, [since, blocked]);
  const { parts: [kind = ''] } = route.value;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.querySelector('main')?.focus(); }}>Skip to the content</a>
      <header>
        <a class="brand" href="#/"><img src="/page/icon.svg" alt="" width="24" height="24" />Flock of Birds</a>
        <nav aria-label="views">
          {tabs.map((t) => <a href={to(t.parts)} aria-current={t.of.includes(kind) ? 'page' : undefined}>{t.name}</a>)}
        </nav>
        {token.value && <button type="button" class="quiet" onClick={() => setToken('')}>Forget token</button>}
      </header>
      {away.value && <p class="away" role="status">{away.value} Trying again…</p>}
      {blocked ? <TokenForm /> : <View />}
    </>
  );
}

render(<Page />, document.getElementById('page'));
