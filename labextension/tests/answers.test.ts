import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  groupObjects,
  readExecutors,
  readExplanation,
  readFailures,
  readLog,
  readMemory,
  readPending,
  readSpecs
} from '../src/answers.ts';

test('rows may be objects, lists of values, or inside of an answer', () => {
  const fields = ['task-1', 'obj-1', 'task', 'train', 'In[1]#x', 'queued', 5, 0, ''];
  const expected = {
    task_id: 'task-1',
    object_id: 'obj-1',
    kind: 'task',
    function: 'train',
    cell: 'In[1]#x',
    state: 'queued',
    submitted: 5,
    attempt: 0,
    executor: ''
  };
  for (const answer of [[fields], [expected], { pending: [expected] }]) {
    assert.deepEqual(readPending(answer), [expected]);
  }
});

for (const wrong of [null, 'text', 3, {}, [1, 'two', null], { rows: 'none' }]) {
  test(`${JSON.stringify(wrong)} has nothing to read`, () => {
    assert.deepEqual(readPending(wrong), []);
    assert.deepEqual(readFailures(wrong), []);
    assert.deepEqual(readMemory(wrong), []);
    assert.deepEqual(readExecutors(wrong), []);
    assert.equal(readExplanation(wrong), null);
  });
}

describe('readLog', () => {
  const line = { time: 1, stream: 'stdout', text: 'a', task_id: 't', function: 'f', cell: '', actor: '' };
  test('a page says where the next one begins', () => {
    assert.deepEqual(readLog({ lines: [line], offset: 7 }, 0), { lines: [line], offset: 7 });
    assert.deepEqual(readLog([[Object.values(line)], 7], 0), { lines: [line], offset: 7 });
  });
  test('plain text has lines, and no place', () => {
    const page = readLog('a\nb\n', 3);
    assert.deepEqual([page.lines.map(one => one.text), page.offset], [['a', 'b'], 3]);
  });
});

test('an explanation has the explanations of its causes', () => {
  const found = readExplanation(['obj-1', 'pending', 'waits', '', [['obj-0', 'running', '', 'wait', []]]]);
  assert.equal(found?.causes[0]?.advice, 'wait');
  assert.equal(readExplanation({ explanation: { subject: 'a', state: 'b' } })?.state, 'b');
});

test('specs say what they start, or what is wrong with them', () => {
  const specs = readSpecs({
    specs: [
      { name: 'local', description: 'on this machine', problem: '' },
      { name: 'a', spec: { cluster_class: 'dask.distributed.LocalCluster' }, problem: '' },
      { name: 'b', spec: null, problem: 'line 3: there is no key `nods`.' }
    ]
  });
  assert.deepEqual(specs[0], { name: 'a', what: 'dask.distributed.LocalCluster', problem: '' });
  assert.match(specs[1]?.problem ?? '', /nods/);
});

test('objects are summed up by cell and holder', () => {
  const object = { object_id: 'a', nbytes: 10, where: 'memory', cell: 'In[1]', held_by: ['x'] };
  const objects = readMemory({ stores: [{}], objects: [object, { ...object, nbytes: 5 }, { ...object, held_by: [] }] });
  const groups = groupObjects(objects);
  assert.deepEqual(
    groups.map(group => group.objects.map(one => one.nbytes).reduce((a, b) => a + b)),
    groups.map(group => group.nbytes)
  );
  assert.deepEqual(groups.map(({ cell, holder, nbytes, count }) => ({ cell, holder, nbytes, count })), [
    { cell: 'In[1]', holder: 'x', nbytes: 15, count: 2 },
    { cell: 'In[1]', holder: '', nbytes: 10, count: 1 }
  ]);
});
