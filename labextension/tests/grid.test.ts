import assert from 'node:assert/strict';
import { test } from 'node:test';

import { functionsIn, hit, summarize } from '../src/grid.ts';
import { OTHERS, Palette } from '../src/palette.ts';
import type { IGrid } from '../src/snapshot.ts';

const grid: IGrid = {
  time: 100,
  step: 2,
  executors: [
    {
      id: 'a',
      node: 'n',
      slices: [
        ['train', 1],
        ['load', 0.5],
        ['load', 0.75],
        [null, 0]
      ]
    },
    { id: 'b', node: 'n', slices: [] }
  ]
};

test('the table says what the drawing does', () => {
  assert.deepEqual(summarize(grid), [
    { id: 'a', node: 'n', main: 'load', busy: 0.5625 },
    { id: 'b', node: 'n', main: '', busy: 0 }
  ]);
  assert.deepEqual(functionsIn(grid), ['load', 'train']);
});

test('a point of the drawing is a slice of time of an executor', () => {
  assert.deepEqual(hit(grid, 99, 5, 400, 10), { executor: 'a', name: 'train', busy: 1, age: 8 });
  assert.deepEqual(hit(grid, 399, 9, 400, 10), { executor: 'a', name: null, busy: 0, age: 2 });
  for (const [x, y] of [
    [400, 5],
    [5, 15],
    [5, 25],
    [-1, 5],
    [5, -1]
  ] as const) {
    assert.equal(hit(grid, x, y, 400, 10), null);
  }
});

test('functions keep their marks; no two share one until there are none left', () => {
  const palette = new Palette();
  const marks = Array.from({ length: Palette.SIZE }, (_, index) => palette.mark(`f${index}`));
  assert.equal(new Set(marks.map(mark => `${mark.colour} ${mark.pattern}`)).size, Palette.SIZE);
  assert.notEqual(marks[0]?.pattern, marks[1]?.pattern);
  assert.equal(palette.mark('one more'), OTHERS);
  assert.equal(palette.mark('f3'), marks[3]);
});
