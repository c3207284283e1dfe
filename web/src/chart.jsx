// A chart over time, drawn by uPlot in the page's colours.
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';

// Chart draws series, a list of {label, color, values, own, fill, bars, steps}, over times in
// milliseconds. color is the name of a CSS variable. Stacked series are sums already, and
// own has their values by themselves.
export function Chart({ times, series, format, label, height = 170 }) {
  const place = useRef(), plot = useRef();
  const shape = JSON.stringify(series.map((s) => [s.label, s.color, s.bars, s.fill]));
  const data = [times.map((t) => t / 1000), ...series.map((s) => s.values)];
  const newest = useRef(data);
  newest.current = data;
  useEffect(() => {
    const scheme = matchMedia('(prefers-color-scheme: dark)');
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(place.current, series, format, height), newest.current, place.current);
    };
    const resize = new ResizeObserver(([entry]) => plot.current.setSize({ width: Math.floor(entry.contentRect.width), height }));
    draw();
    resize.observe(place.current);
    scheme.addEventListener('change', draw);
    return () => {
      scheme.removeEventListener('change', draw);
      resize.disconnect();
      plot.current.destroy();
      plot.current = undefined;
    };
  }, [shape, height]);
  useEffect(() => plot.current?.setData(newest.current), [JSON.stringify(data)]);
  return <div class="chart" ref={place} role="img" aria-label={label} />;
}

function options(place, series, format, height) {
  const style = getComputedStyle(place);
  const color = (name) => style.getPropertyValue('--' + name).trim();
  const axis = { stroke: color('faint'), grid: { stroke: color('line'), width: 1 }, ticks: { show: false }, font: '12px system-ui, sans-serif' };
  return {
    width: Math.max(200, Math.floor(place.clientWidth)), height,
    padding: [8, 8, 0, 0],
    cursor: { y: false, points: { size: 6 } },
    legend: { live: true },
    scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.05 : 1] } },
    axes: [
      { ...axis, space: 70, size: 32, values: [[86400, '{MMM} {D}', null, null, null, null, null, null, 1], [3600, '{HH}:{mm}', null, null, null, null, null, null, 1], [60, '{HH}:{mm}', null, null, null, null, null, null, 1], [1, '{HH}:{mm}:{ss}', null, null, null, null, null, null, 1]] },
      { ...axis, size: 62, space: 34, values: (_, all) => all.map(format) },
    ],
    series: [
      { value: '{HH}:{mm}:{ss}' },
      ...series.map((s) => ({
        label: s.label, stroke: color(s.color), width: s.bars ? 0 : 1.5, points: { show: !s.bars && !s.steps, size: 5, fill: color(s.color) },
        fill: s.fill ? color(s.color) : undefined, spanGaps: false,
        paths: s.bars ? uPlot.paths.bars({ size: [0.9, 40] }) : s.steps ? uPlot.paths.stepped({ align: 1 }) : undefined,
        value: (_, v, i, at) => (v === null || v === undefined ? '–' : format(s.own ? s.own[at] ?? v : v)),
      })),
    ],
  };
}
