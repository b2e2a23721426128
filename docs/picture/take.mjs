// Takes a picture of the dashboard: its queries are answered by a real Prometheus, its panels drawn by Grafana's own
// components in a headless Chromium.
//
//   npm install && node take.mjs PROMETHEUS FROM TO OUT [ROW...]
//
// PROMETHEUS is its address, FROM and TO are the time range (RFC 3339), OUT is the PNG file, and each ROW is the beginning of the
// title of a row that is wanted; all are where none is named. docs/dashboard.png is three replicas with spools, two sources and three
// brokers on one busy machine of two cores, for thirteen minutes; Kafka was frozen for 45 s, and a replica was killed.
import { readFileSync } from 'node:fs';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';

const [prometheus, begin, end, out, ...wanted] = process.argv.slice(2);
const dashboard = JSON.parse(readFileSync(new URL('../../helm/clearfeed-relay/files/dashboard.json', import.meta.url), 'utf8'));
const [from, to] = [begin, end].map((time) => Math.floor(Date.parse(time) / 1000));
const step = 10;
const scrape = 15; // seconds, as in the settings of a data source

async function ask(endpoint, parameters) {
  const answer = await (await fetch(`${prometheus}/api/v1/${endpoint}?${new URLSearchParams(parameters)}`)).json();
  if (answer.status !== 'success') throw new Error(`${JSON.stringify(parameters)}: ${JSON.stringify(answer)}`);
  return answer.data.result;
}

// As Grafana fills in its macros, with All chosen in every menu.
const filled = (expr, every) =>
  expr.replaceAll('$__rate_interval', `${Math.max(every + scrape, 4 * scrape)}s`).replace(/\$(namespace|job|instance|source)\b/g, '.*');
const range = (expr, every) => ask('query_range', { query: filled(expr, every), start: from, end: to, step: every });

async function answer(panel) {
  const every = panel.interval === '1m' ? 60 : step;
  const targets = panel.targets.map(async (target) => ({
    ...target,
    result: target.instant ? await ask('query', { query: filled(target.expr, step), time: to }) : await range(target.expr, every),
  }));
  return { ...panel, step: every, targets: await Promise.all(targets) };
}

// The wanted rows with their panels, one below the other.
function sections(panels) {
  const shown = [];
  let [isWanted, above, end] = [true, 0, 0];
  for (const panel of panels) {
    const { y, h } = panel.gridPos;
    if (panel.type === 'row') {
      isWanted = !wanted.length || wanted.some((title) => panel.title.startsWith(title));
      above = y - end;
    }
    if (!isWanted) continue;
    shown.push({ ...panel, gridPos: { ...panel.gridPos, y: y - above } });
    end = Math.max(end, y - above + h);
  }
  return shown;
}

const panels = await Promise.all(sections(dashboard.panels).map((panel) => (panel.type === 'row' ? panel : answer(panel))));
const marks = [];
for (const { expr, iconColor, useValueForTime } of dashboard.annotations.list.filter((annotation) => annotation.expr)) {
  for (const { values } of await range(expr, step)) {
    const times = useValueForTime ? new Set(values.map(([, value]) => Number(value))) : [1000 * values[0][0]];
    marks.push(...[...times].map((time) => ({ time, color: iconColor })));
  }
}

const { outputFiles } = await build({
  entryPoints: [new URL('page.jsx', import.meta.url).pathname],
  bundle: true,
  write: false,
  minify: true,
  jsx: 'automatic',
  logLevel: 'error',
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
  loader: { '.svg': 'dataurl', '.woff2': 'dataurl', '.ttf': 'dataurl', '.css': 'text' },
});
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
const page = await browser.newPage({ viewport: { width: 1600, height: 1200 } });
page.on('pageerror', (error) => console.error(error.message));
page.on('console', (message) => message.type() === 'error' && console.error(message.text()));
// Grafana's components want local storage, which a page without an origin has not. Nothing is fetched.
await page.route('**/*', (route) => route.fulfill({ contentType: 'text/html', body: '<!doctype html><body style="margin:0"><div id="root"></div></body>' }));
await page.goto('http://localhost/');
await page.evaluate((picture) => Object.assign(window, { picture }), { panels, marks: marks.filter(({ time }) => time > 1000 * (from + 60)), from: from * 1000, to: to * 1000 });
await page.addScriptTag({ content: outputFiles[0].text });
await page.waitForFunction(() => document.querySelectorAll('[data-panel]').length > 0);
await page.waitForTimeout(3000);
await page.screenshot({ path: out, fullPage: true });
await browser.close();
