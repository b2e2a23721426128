// The dashboard's panels in their places, drawn by Grafana's components where it publishes them (curves, numbers, frames), and
// by a few lines of our own where it does not (heatmaps, state timelines, the table).
import { createRoot } from 'react-dom/client';
import { useEffect, useRef } from 'react';
import { createTheme, dateTime, FieldType, getDisplayProcessor, toDataFrame, ThemeContext } from '@grafana/data';
import plotStyle from 'uplot/dist/uPlot.min.css';
import { BigValue, GlobalStyles, PanelChrome, TimeSeries } from '@grafana/ui';

const { panels, marks, from, to } = window.picture;
const theme = createTheme({ colors: { mode: 'dark' } });
const [cell, gap, width] = [30, 8, 1600 - 16];
const timeZone = 'utc';
const timeRange = { from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } };

const named = (legend, labels) => legend.replace(/{{\s*(\w+)\s*}}/g, (_, label) => labels[label] ?? '') || JSON.stringify(labels);

// A field with the panel's configuration, and what the overrides of its name say.
function configured(panel, field, index) {
  const { defaults, overrides } = panel.fieldConfig;
  const name = field.config.displayName;
  const config = { ...defaults, ...field.config };
  for (const { matcher, properties } of overrides) {
    if (matcher.options === name) properties.forEach(({ id, value }) => (config[id] = value));
  }
  Object.assign(field, { config, state: { ...field.state, seriesIndex: index, displayName: name } });
  field.display = getDisplayProcessor({ field, theme, timeZone });
  return field;
}

function frames(panel) {
  const times = [];
  for (let time = from; time <= to; time += panel.step * 1000) times.push(time);
  const series = panel.targets.flatMap(({ legendFormat, result, refId }) =>
    result.map(({ metric, values }) => {
      const known = new Map(values.map(([time, value]) => [time * 1000, Number(value)]));
      const numbers = times.map((time) => (Number.isFinite(known.get(time)) ? known.get(time) : null));
      const value = { name: 'Value', type: FieldType.number, values: numbers, labels: metric, config: { displayName: named(legendFormat, metric) } };
      return toDataFrame({ refId, fields: [{ name: 'Time', type: FieldType.time, values: times, config: {} }, value] });
    })
  );
  series.forEach((frame, index) => configured(panel, frame.fields[1], index));
  return series;
}

// Restarts and new versions, over every curve.
const drawMarks = (plot) => {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.setLineDash([4, 3]);
  for (const { time, color } of marks) {
    const x = plot.valToPos(time, 'x', true);
    ctx.strokeStyle = ctx.fillStyle = theme.visualization.getColorByName(color);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.beginPath();
    ctx.moveTo(x - 4, bbox.top + bbox.height + 5);
    ctx.lineTo(x + 4, bbox.top + bbox.height + 5);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.fill();
  }
  ctx.restore();
};

const Curves = ({ panel, width, height }) => (
  <TimeSeries frames={frames(panel)} width={width} height={height} timeRange={timeRange} timeZone={timeZone} legend={panel.options.legend} options={{}}>
    {(config) => (config.addHook('draw', drawMarks), null)}
  </TimeSeries>
);

function Numbers({ panel, width, height }) {
  const values = panel.targets.flatMap(({ legendFormat, result }) =>
    result.map(({ value, metric }) => {
      const field = configured(panel, { name: 'Value', type: FieldType.number, values: [Number(value[1])], config: { displayName: named(legendFormat, metric) } }, 0);
      return { ...field.display(Number(value[1])), title: named(legendFormat, metric) };
    })
  );
  const shown = values.length ? values : [{ text: panel.fieldConfig.defaults.noValue ?? 'No data', numeric: NaN }];
  const { colorMode, textMode, justifyMode } = panel.options;
  return (
    <div style={{ display: 'flex', gap: 4 }}>
      {shown.map((value, index) => (
        <BigValue key={index} value={value} width={(width - 4 * (shown.length - 1)) / shown.length} height={height} theme={theme} colorMode={colorMode} graphMode="none" textMode={textMode} justifyMode={justifyMode} />
      ))}
    </div>
  );
}

// Clock times under what has an axis of our own.
function Times({ left, width, top }) {
  const ticks = [];
  const every = 300_000 * Math.max(1, Math.ceil((to - from) / 300_000 / Math.max(2, width / 90)));
  for (let time = Math.ceil(from / every) * every; time < to; time += every) ticks.push(time);
  return ticks.map((time) => (
    <div key={time} style={{ ...small, position: 'absolute', top, left: left + ((time - from) / (to - from)) * width - 20, width: 40, textAlign: 'center' }}>
      {new Date(time).toISOString().slice(11, 16)}
    </div>
  ));
}
const small = { fontSize: 12, color: theme.colors.text.secondary, whiteSpace: 'nowrap' };

function States({ panel, width, height }) {
  const rows = frames(panel);
  const left = 12 + 7 * Math.max(6, ...rows.map((frame) => frame.fields[1].config.displayName.length));
  const [inner, rowHeight] = [width - left - 8, Math.min(60, (height - 24) / Math.max(1, rows.length))];
  return (
    <div style={{ position: 'relative' }}>
      {rows.map((frame, row) => {
        const { values, display, config } = frame.fields[1];
        const spans = [];
        values.forEach((value, index) => {
          const last = spans.at(-1);
          if (last && last.value === value) last.count += 1;
          else spans.push({ value, index, count: 1 });
        });
        return (
          <div key={row}>
            <div style={{ ...small, position: 'absolute', top: row * rowHeight + rowHeight / 2 - 9, width: left - 8, textAlign: 'right' }}>{config.displayName}</div>
            {spans.filter(({ value }) => value !== null).map(({ value, index, count }) => {
              const { text, color } = display(value);
              const size = (count / values.length) * inner;
              return (
                <div key={index} style={{ position: 'absolute', top: row * rowHeight + rowHeight * 0.1, height: rowHeight * 0.8, left: left + (index / values.length) * inner, width: size, background: color, opacity: 0.85, color: '#111217', fontSize: 12, overflow: 'hidden', display: 'flex', alignItems: 'center', justifyContent: 'center' }}>
                  {size > 8 * text.length + 6 ? text : ''}
                </div>
              );
            })}
          </div>
        );
      })}
      <Times left={left} width={inner} top={height - 20} />
    </div>
  );
}

// Dark where little is, on a dark page; Grafana's scheme Blues.
const blues = ['#08306b', '#08519c', '#2171b5', '#4292c6', '#6baed6', '#9ecae1', '#c6dbef', '#deebf7', '#f7fbff'];
function Heat({ panel, width, height }) {
  const canvas = useRef(null);
  const buckets = frames(panel).sort((a, b) => Number(a.fields[1].labels.le.replace('+Inf', 'Infinity')) - Number(b.fields[1].labels.le.replace('+Inf', 'Infinity')));
  const [left, bottom] = [56, 22];
  const [inner, tall] = [width - left - 8, height - bottom - 4];
  const seconds = getDisplayProcessor({ field: { type: FieldType.number, config: { unit: 's' } }, theme });
  const label = (le) => (le === '+Inf' ? '' : `${seconds(Number(le)).text}${seconds(Number(le)).suffix ?? ''}`);
  useEffect(() => {
    const context = canvas.current.getContext('2d');
    const cells = buckets.map((frame, row) => frame.fields[1].values.map((value, column) => Math.max(0, (value ?? 0) - (row ? (buckets[row - 1].fields[1].values[column] ?? 0) : 0))));
    const most = Math.max(...cells.flat());
    cells.forEach((row, index) =>
      row.forEach((count, column) => {
        if (count < 1e-9) return;
        context.fillStyle = blues[Math.min(blues.length - 1, Math.floor(Math.sqrt(count / most) * blues.length))];
        const [w, h] = [inner / row.length, tall / cells.length];
        context.fillRect(column * w, tall - (index + 1) * h, w - 1, h - 1);
      })
    );
  }, []);
  return (
    <div style={{ position: 'relative' }}>
      {buckets.map((frame, row) => (row % 3 === 0 ? <div key={row} style={{ ...small, position: 'absolute', width: left - 8, textAlign: 'right', top: tall - ((row + 1) / buckets.length) * tall - 8 }}>{label(frame.fields[1].labels.le)}</div> : null))}
      <canvas ref={canvas} width={inner} height={tall} style={{ position: 'absolute', left, top: 0 }} />
      <Times left={left} width={inner} top={tall + 3} />
    </div>
  );
}

const kinds = { timeseries: Curves, stat: Numbers, 'state-timeline': States, heatmap: Heat };

function Panel({ panel }) {
  const { x, y, w, h } = panel.gridPos;
  const column = (width + gap) / 24;
  const place = { position: 'absolute', left: 8 + x * column, top: 8 + y * (cell + gap), width: w * column - gap, height: h * (cell + gap) - gap };
  if (panel.type === 'row') {
    return <div style={{ ...place, fontSize: 16, fontWeight: 500, display: 'flex', alignItems: 'center' }}>⌄&nbsp; {panel.title}</div>;
  }
  const Kind = kinds[panel.type];
  return (
    <div style={place} data-panel={panel.id}>
      <PanelChrome title={panel.title} width={place.width} height={place.height}>
        {(innerWidth, innerHeight) => <Kind panel={panel} width={innerWidth} height={innerHeight} />}
      </PanelChrome>
    </div>
  );
}

const shown = panels.filter((panel) => panel.type === 'row' || kinds[panel.type]);
const bottom = Math.max(...shown.map(({ gridPos: { y, h } }) => y + h));
createRoot(document.getElementById('root')).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <style>{plotStyle}</style>
    <div style={{ position: 'relative', height: 16 + bottom * (cell + gap), fontFamily: 'Inter', color: theme.colors.text.primary, background: theme.colors.background.canvas }}>
      {shown.map((panel) => <Panel key={panel.id} panel={panel} />)}
    </div>
  </ThemeContext.Provider>
);
