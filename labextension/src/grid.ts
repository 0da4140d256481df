/** The task grid as rows and cells: pure, so that what is drawn can be tested without a canvas. */

import type { IGrid } from './snapshot.ts';

/** What one executor did in the time shown. */
export interface IGridRow {
  id: string;
  node: string;
  /** The function that took most of the time; "" if it did nothing. */
  main: string;
  /** How much of the time it was busy, 0 to 1. */
  busy: number;
}

export function summarize(grid: IGrid): IGridRow[] {
  return grid.executors.map(({ id, node, slices }) => {
    const byFunction = new Map<string, number>();
    let sum = 0;
    for (const [name, busy] of slices) {
      sum += busy;
      if (name !== null) {
        byFunction.set(name, (byFunction.get(name) ?? 0) + busy);
      }
    }
    const main = [...byFunction].reduce<[string, number]>((a, b) => (b[1] > a[1] ? b : a), ['', 0])[0];
    return { id, node, main, busy: slices.length === 0 ? 0 : sum / slices.length };
  });
}

/** The functions in the grid, what took most time first. */
export function functionsIn(grid: IGrid): string[] {
  const sums = new Map<string, number>();
  for (const { slices } of grid.executors) {
    for (const [name, busy] of slices) {
      if (name !== null) {
        sums.set(name, (sums.get(name) ?? 0) + busy);
      }
    }
  }
  return [...sums].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
}

/** The slice under a point of the drawing; null outside. */
export function hit(
  grid: IGrid,
  x: number,
  y: number,
  width: number,
  rowHeight: number
): { executor: string; name: string | null; busy: number; age: number } | null {
  const row = grid.executors[Math.floor(y / rowHeight)];
  if (row === undefined || x < 0 || x >= width || y < 0) {
    return null;
  }
  const index = Math.floor((x / width) * row.slices.length);
  const slice = row.slices[index];
  return slice === undefined
    ? null
    : {
        executor: row.id,
        name: slice[0],
        busy: slice[1],
        age: (row.slices.length - index) * grid.step
      };
}
