import assert from 'node:assert/strict';
import { test } from 'node:test';

import { countOf, driversOf, newsOf, progressOf, runOf, sortActors, sortCells } from '../src/work.ts';
import { NO_COUNTS, makeSnapshot } from './made.ts';

test('progress has parts that make up what was submitted', () => {
  const progress = progressOf({ ...NO_COUNTS, queued: 2, running: 2, finished: 4, failed: 1, cancelled: 1 });
  assert.deepEqual(progress, {
    total: 10,
    ended: 6,
    finished: 0.4,
    failed: 0.1,
    cancelled: 0.1,
    running: 0.2
  });
  assert.equal(progressOf(NO_COUNTS).total, 0);
});

test('cells that work come first, then the newest', () => {
  const cell = { ...NO_COUNTS, id: '', name: '', owner: '', began: 0, changed: 0, functions: [] };
  const cells = [
    { ...cell, id: 'old', began: 1, running: 1 },
    { ...cell, id: 'done', began: 3 },
    { ...cell, id: 'new', began: 2, queued: 1 }
  ];
  assert.deepEqual(
    sortCells(cells).map(one => one.id),
    ['new', 'old', 'done']
  );
});

test('a tag holds the run and the number of its cell', () => {
  assert.equal(runOf('In[3]#abc-1/2'), 'abc-1');
  assert.equal(countOf('In[3]#abc'), 3);
  assert.equal(countOf('main.py#abc'), null);
});

test('drivers, the newest first, without other owners', () => {
  const owner = { id: 'a', is_driver: true, job: '', joined: 1, queued: 0 };
  const owners = [owner, { ...owner, id: 'x', is_driver: false, joined: 9 }, { ...owner, id: 'b', joined: 2 }];
  assert.deepEqual(driversOf(makeSnapshot({ owners })), ['b', 'a']);
});

test('actors in trouble come first, dead ones last', () => {
  const actor = { id: '', name: '', class_name: '', state: '', node: '', owner: '', restarts: 0, pending: 0 };
  const actors = ['dead', 'alive', 'restarting', 'pending'].map(state => ({ ...actor, id: state, state }));
  assert.deepEqual(
    sortActors([...actors, { ...actor, id: 'busy', state: 'alive', pending: 3 }]).map(one => one.id),
    ['restarting', 'pending', 'busy', 'alive', 'dead']
  );
});

test('what changes all the time is not read out', () => {
  const now = { clusters: 1, failed: 0, state: 'a running' };
  assert.deepEqual(newsOf(null, now), ['clusters']);
  assert.deepEqual(newsOf(now, { ...now }), []);
  assert.deepEqual(newsOf(now, { clusters: 2, failed: 3, state: 'a ended' }), ['clusters', 'state', 'failed']);
  assert.deepEqual(newsOf({ ...now, failed: 3 }, now), []);
});
