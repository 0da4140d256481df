import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import { apply } from '../src/deltas.ts';

interface ICase {
  name: string;
  before: Record<string, unknown>;
  delta: Record<string, unknown>;
  after: Record<string, unknown>;
}

// written by tests/helpers/delta_fixtures.py
const { cases } = JSON.parse(readFileSync(new URL('deltas.json', import.meta.url), 'utf8')) as {
  cases: ICase[];
};

describe('apply, as the cluster means it', () => {
  for (const { name, before, delta, after } of cases) {
    test(name, () => {
      const copy = structuredClone(before);
      assert.deepEqual(apply(before, delta), after);
      assert.deepEqual(before, copy, 'what was before has changed');
    });
  }
});

test('rows that did not change are shared, so that they need not be drawn again', () => {
  const before = { nodes: [{ id: 'a' }, { id: 'b', x: 1 }] };
  const after = apply(before, { nodes: { changed: [{ id: 'b', x: 2 }] } });
  assert.equal(after.nodes[0], before.nodes[0]);
  assert.notEqual(after.nodes[1], before.nodes[1]);
});

test('a change of a table that is not there is an error', () => {
  assert.throws(() => apply({}, { nodes: { gone: ['a'] } }), /nodes/);
  assert.throws(() => apply({ nodes: [] }, { nodes: { order: ['a'] } }), /row a/);
});
