// Hooks: what a view loads, what it does again and again, and what it follows.
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

// useLines follows a stream of JSON lines, and returns the newest so many of them. When
// the stream ends it begins again.
export function useLines(path, most, headers) {
  const [state, set] = useState({ lines: [], error: undefined, open: false });
  const since = epoch.value;
  useEffect(() => {
    if (!path) return;
    const ends = new AbortController();
    let timer;
    const run = async () => {
      let wait = 1000;
      try {
        set((old) => ({ ...old, open: true, error: undefined }));
        await lines(path, (more) => set((old) => ({ ...old, lines: [...old.lines, ...more].slice(-most) })), ends.signal, headers);
      } catch (error) {
        if (ends.signal.aborted) return;
        if (error.status) {
          set((old) => ({ ...old, error, open: false }));
          wait = error.status >= 500 || error.status === 429 ? 5000 : 0;
        }
      }
      if (wait && !ends.signal.aborted) timer = setTimeout(run, wait);
    };
    run();
    return () => {
      ends.abort();
      clearTimeout(timer);
    };
  }, [path, since]);
  return { ...state, clear: () => set((old) => ({ ...old, lines: [] })) };
}
