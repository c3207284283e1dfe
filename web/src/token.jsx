// Asks for the token.
import { useEffect, useRef, useState } from 'preact/hooks';
import { setToken, tokenNeeded } from './api.js';

export function TokenForm() {
  const [text, set] = useState('');
  const field = useRef();
  useEffect(() => field.current.focus(), []);
  const submit = (event) => {
    event.preventDefault();
    // A header cannot hold anything else, and then the request would fail without a reason.
    if (/^[\x21-\x7e]+$/.test(text.trim())) setToken(text.trim());
    else tokenNeeded.value = 'A token begins with fob_ and has letters and digits only.';
  };
  return (
    <main class="narrow" tabIndex={-1}>
      <h1>Token</h1>
      <form class="card stack" onSubmit={submit}>
        <p role="alert">{tokenNeeded.value}</p>
        <label>Token <input ref={field} type="password" value={text} onInput={(e) => set(e.target.value)} placeholder="fob_…" autocomplete="off" required /></label>
        <button class="primary">Use it</button>
        <p class="faint">It is kept in this tab until the tab is closed. <code>dispatcher token create NAME --grant admin</code> makes one; with <code>--grant read</code> the page shows all and changes nothing.</p>
      </form>
    </main>
  );
}
