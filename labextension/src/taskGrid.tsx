import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import { formatPercent, formatSeconds } from './format';
import { functionsIn, hit, summarize } from './grid';
import { COLOURS, Palette, type IMark } from './palette';
import { Fold, More } from './parts';
import type { IGrid } from './snapshot';

const ROW_HEIGHT = 10;
/** Functions named in the legend; the busiest. */
const MOST_NAMED = 12;

/** Functions keep their marks as long as the page lives, whatever cluster is shown. */
const palette = new Palette();

/** What each executor did in the last minute: time from left to right, one row each, a mark for each function. */
export function TaskGrid({ grid, trans }: { grid: IGrid; trans: TranslationBundle }): React.JSX.Element {
  const canvas = React.useRef<HTMLCanvasElement>(null);
  const [note, setNote] = React.useState('');
  const height = grid.executors.length * ROW_HEIGHT;
  const names = functionsIn(grid);
  const seconds = grid.step * (grid.executors[0]?.slices.length ?? 0);
  const [width, setWidth] = React.useState(0);

  React.useEffect(() => {
    const node = canvas.current;
    if (node === null) {
      return undefined;
    }
    const observer = new ResizeObserver(() => {
      setWidth(node.clientWidth);
    });
    observer.observe(node);
    return () => {
      observer.disconnect();
    };
  }, []);

  React.useEffect(() => {
    if (canvas.current !== null && width > 0) {
      draw(canvas.current, grid, width, height);
    }
  }, [grid, width, height]);

  const point = (event: React.MouseEvent): void => {
    const box = event.currentTarget.getBoundingClientRect();
    const found = hit(grid, event.clientX - box.left, event.clientY - box.top, box.width, ROW_HEIGHT);
    setNote(
      found === null
        ? ''
        : found.name === null
          ? trans.__('%1: idle, %2 ago', found.executor, formatSeconds(found.age))
          : trans.__('%1: %2, %3 ago', found.executor, found.name, formatSeconds(found.age))
    );
  };

  return (
    <div className="shoal-Grid">
      <div className="shoal-Grid-scroll">
        <canvas
          ref={canvas}
          role="img"
          aria-label={trans.__(
            'What %1 executors did in the last %2. The table below says the same.',
            grid.executors.length,
            formatSeconds(seconds)
          )}
          style={{ height }}
          onMouseMove={point}
          onMouseLeave={() => {
            setNote('');
          }}
        />
      </div>
      <div className="shoal-Grid-axis" aria-hidden="true">
        <span>{trans.__('%1 ago', formatSeconds(seconds))}</span>
        <span className="shoal-Grid-note">{note}</span>
        <span>{trans.__('now')}</span>
      </div>
      <ul className="shoal-Legend" aria-label={trans.__('Functions in the grid')}>
        {names.slice(0, MOST_NAMED).map(name => (
          <li key={name} title={name}>
            <Swatch mark={palette.mark(name)} />
            <code>{name}</code>
          </li>
        ))}
      </ul>
      <More hidden={names.length - MOST_NAMED} trans={trans} />
      <Fold title={trans.__('As a table')}>
        <GridTable grid={grid} trans={trans} />
      </Fold>
    </div>
  );
}

function GridTable({ grid, trans }: { grid: IGrid; trans: TranslationBundle }): React.JSX.Element {
  return (
    <div className="shoal-TableScroll" tabIndex={0} role="region" aria-label={trans.__('Executors')}>
      <table className="shoal-Table">
        <thead>
          <tr>
            <th scope="col">{trans.__('Executor')}</th>
            <th scope="col">{trans.__('Busy')}</th>
            <th scope="col">{trans.__('Mostly with')}</th>
          </tr>
        </thead>
        <tbody>
          {summarize(grid).map(row => (
            <tr key={row.id}>
              <th scope="row" title={`${row.id}\n${row.node}`}>
                {row.id}
              </th>
              <td>{formatPercent(row.busy)}</td>
              <td>{row.main ? <code>{row.main}</code> : '–'}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Swatch({ mark }: { mark: IMark }): React.JSX.Element {
  return (
    <span
      className="shoal-Swatch"
      data-pattern={mark.pattern}
      style={{ backgroundColor: mark.colour }}
      aria-hidden="true"
    />
  );
}

function draw(canvas: HTMLCanvasElement, grid: IGrid, width: number, height: number): void {
  const scale = window.devicePixelRatio || 1;
  const [pixelWidth, pixelHeight] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== pixelWidth || canvas.height !== pixelHeight) {
    canvas.width = pixelWidth;
    canvas.height = pixelHeight;
  }
  const context = canvas.getContext('2d');
  if (context === null) {
    return;
  }
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  const fills = new Map<string, string | CanvasPattern>();
  grid.executors.forEach(({ slices }, row) => {
    const step = width / Math.max(1, slices.length);
    const bottom = (row + 1) * ROW_HEIGHT - 1;
    slices.forEach(([name, busy], index) => {
      if (name === null || busy <= 0) {
        return;
      }
      let fill = fills.get(name);
      if (fill === undefined) {
        fill = makeFill(context, palette.mark(name));
        fills.set(name, fill);
      }
      context.fillStyle = fill;
      // how high it is says how much of the time the executor was busy
      const size = Math.max(1, Math.round((ROW_HEIGHT - 2) * Math.min(1, busy)));
      context.fillRect(index * step, bottom - size, Math.max(1, step), size);
    });
  });
}

const TILE = 6;
const fillsMade = new Map<string, HTMLCanvasElement>();

function makeFill(context: CanvasRenderingContext2D, mark: IMark): string | CanvasPattern {
  if (mark.pattern === 'plain') {
    return mark.colour;
  }
  const key = `${mark.colour} ${mark.pattern}`;
  let tile = fillsMade.get(key);
  if (tile === undefined) {
    tile = document.createElement('canvas');
    tile.width = tile.height = TILE;
    fillsMade.set(key, tile);
    const brush = tile.getContext('2d');
    if (brush === null) {
      return mark.colour;
    }
    brush.fillStyle = mark.colour;
    brush.fillRect(0, 0, TILE, TILE);
    // light on the dark colours and dark on the light ones
    const isLight = mark.colour === COLOURS[1] || mark.colour === COLOURS[4] || mark.colour === COLOURS[6];
    brush.fillStyle = brush.strokeStyle = isLight ? 'rgba(0, 0, 0, 0.6)' : 'rgba(255, 255, 255, 0.75)';
    if (mark.pattern === 'dots') {
      brush.fillRect(1, 1, 2, 2);
      brush.fillRect(4, 4, 2, 2);
    } else if (mark.pattern === 'bars') {
      brush.fillRect(0, 0, 2, TILE);
    } else {
      brush.lineWidth = 1.5;
      brush.beginPath();
      brush.moveTo(0, TILE);
      brush.lineTo(TILE, 0);
      brush.stroke();
    }
  }
  return context.createPattern(tile, 'repeat') ?? mark.colour;
}
