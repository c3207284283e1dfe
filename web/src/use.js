// Hooks: what a view loads, what it does again and again, and what it follows.
import { signal } from '@preact/signals';
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { away, epoch, lines } from './api.js';

// useLoad returns what load, called with an AbortSignal, resolves to. It loads anew when
// what it depends on changes, when the dispatcher comes back, and every so many
// milliseconds. Until then it goes on to show what it had.
export function useLoad(load, depends = [], every = 0) {
  const [state, set] = useState({ data: undefined, error: undefined });
  const [round, again] = useState(0);
  const newest = useRef(load);
  newest.current = load;
  const since = epoch.value;
  const key = JSON.stringify(depends);
  const shown = useRef(key);
  useEffect(() => {
    const ends = new AbortController();
    let timer;
    const run = async () => {
      try {
        const data = await newest.current(ends.signal);
        if (!ends.signal.aborted) set({ data, error: undefined });
      } catch (error) {
        if (ends.signal.aborted || error.name === 'AbortError') return;
        set((old) => (away.peek() ? old : { data: shown.current === key ? old.data : undefined, error }));
      }
      shown.current = key;
      if (every && !ends.signal.aborted) timer = setTimeout(run, every);
    };
    if (shown.current !== key) set({ data: undefined, error: undefined });
    run();
    return () => {
      ends.abort();
      clearTimeout(timer);
    };
  }, [key, since, round, every]);
  return { ...state, reload: useCallback(() => again((n) => n + 1), []) };
}

// visible says whether the tab is in front.
const visible = signal(!document.hidden);
document.addEventListener('visibilitychange', () => (visible.value = !document.hidden));

// useLines follows a stream of JSON lines, and returns the newest so many of them, and how
// often the stream was opened: before that something may be missing. When the stream ends
// it begins again. However fast lines come, they are shown ten times a second at most. A
// tab in the background follows nothing: a browser has few connections to one host, for
// all tabs together.
export function useLines(path, most, headers) {
  const [state, set] = useState({ lines: [], error: undefined, opened: 0, live: false });
  const since = epoch.value, inFront = visible.value;
  useEffect(() => {
    if (!path || !inFront) return;
    set((old) => ({ ...old, lines: [], live: false }));
    const ends = new AbortController();
    let timer, drawing, held = [];
    const draw = () => {
      drawing = undefined;
      const more = held;
      held = [];
      set((old) => ({ ...old, lines: [...old.lines, ...more].slice(-most) }));
    };
    const take = (more) => {
      held = [...held, ...more].slice(-most);
      drawing ??= setTimeout(draw, 100);
    };
    const run = async () => {
      let wait = 1000;
      try {
        await lines(path, { take, opened: () => set((old) => ({ ...old, error: undefined, opened: old.opened + 1, live: true })), ends: ends.signal, headers });
      } catch (error) {
        if (ends.signal.aborted) return;
        if (error.status) {
          set((old) => ({ ...old, error }));
          wait = error.status >= 500 || error.status === 429 ? 5000 : 0;
        }
      }
      if (ends.signal.aborted) return;
      set((old) => ({ ...old, live: false }));
      if (wait) timer = setTimeout(run, wait);
    };
    run();
    return () => {
      ends.abort();
      clearTimeout(timer);
      clearTimeout(drawing);
    };
  }, [path, since, inFront]);
  return state;
}
