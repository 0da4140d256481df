import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  START_CODE,
  connectCode,
  displayName,
  formatBytes,
  formatNumber,
  formatPercent,
  groupActors,
  initialState,
  isAnswer,
  notableFunctions,
  ownerName,
  ratio,
  reduce,
  sortClusters,
  totals,
  type ICluster,
  type INode,
  type IProblem,
  type ISnapshot
} from '../src/model.ts';

function makeCluster(parts: Partial<ICluster> = {}): ICluster {
  return {
    id: 'cluster-1',
    name: 'minnow',
    address: 'tls://127.0.0.1:43211',
    kind: 'embedded',
    pid: 12,
    host: 'here',
    created: 100,
    notebook: '/home/ada/quickstart.ipynb',
    python: '3.11.7',
    state: 'running',
    message: '',
    snapshot: null,
    ...parts
  };
}

function makeNode(parts: Partial<INode> = {}): INode {
  return {
    id: 'node-1',
    host: '127.0.0.1',
    cpus: 2,
    cpus_used: 1,
    cpu_ratio: 0.5,
    memory: 1000,
    memory_used: 250,
    executors: 1,
    ...parts
  };
}

function makeSnapshot(parts: Partial<ISnapshot> = {}): ISnapshot {
  return {
    version: 2,
    time: 200,
    cluster: { id: 'cluster-1', name: 'minnow', address: 'tls://127.0.0.1:43211', started: 100 },
    nodes: [],
    tasks: { running: 0, queued: 0, finished: 0, failed: 0 },
    functions: [],
    actors: [],
    drivers: 1,
    ...parts
  };
}

describe('reduce', () => {
  const answered = reduce(initialState, { type: 'answer', clusters: [makeCluster()] });
  const problem = (kind: IProblem['kind']): IProblem => ({ kind, detail: 'why' });

  test('an answer replaces what was known and clears the problem', () => {
    const troubled = reduce(answered, { type: 'problem', problem: problem('no-answer') });
    const next = reduce(troubled, { type: 'answer', clusters: [] });
    assert.deepEqual(next, { loaded: true, clusters: [], problem: null });
  });

  for (const kind of ['no-answer', 'bad-answer'] as const) {
    test(`${kind}: the clusters seen last stay`, () => {
      const next = reduce(answered, { type: 'problem', problem: problem(kind) });
      assert.deepEqual(next.clusters, answered.clusters);
      assert.equal(next.problem?.kind, kind);
    });
  }

  for (const kind of ['not-enabled', 'not-allowed'] as const) {
    test(`${kind}: what may not be seen any more is not shown any more`, () => {
      const next = reduce(answered, { type: 'problem', problem: problem(kind) });
      assert.deepEqual(next.clusters, []);
    });
  }

  test('a first look that fails counts as loaded', () => {
    assert.equal(reduce(initialState, { type: 'problem', problem: problem('no-answer') }).loaded, true);
  });

  test('states are not changed in place', () => {
    reduce(answered, { type: 'answer', clusters: [] });
    assert.equal(answered.clusters.length, 1);
  });
});

test('the newest cluster comes first and ties keep their places', () => {
  const [a, b, c] = [
    makeCluster({ id: 'a', created: 1 }),
    makeCluster({ id: 'b', created: 1 }),
    makeCluster({ id: 'c', created: 2 })
  ];
  for (const order of [
    [a, b, c],
    [c, b, a],
    [b, a, c]
  ]) {
    assert.deepEqual(
      sortClusters(order).map(one => one.id),
      ['c', 'a', 'b']
    );
  }
});

describe('isAnswer', () => {
  test('takes what the server sends', () => {
    assert.ok(isAnswer({ clusters: [] }));
    assert.ok(isAnswer({ clusters: [makeCluster(), makeCluster({ snapshot: makeSnapshot() })] }));
  });

  for (const wrong of [null, 'text', [], {}, { clusters: null }, { clusters: [1] }, { clusters: [{ id: 1 }] }]) {
    test(`refuses ${JSON.stringify(wrong)}`, () => {
      assert.equal(isAnswer(wrong), false);
    });
  }
});

describe('figures', () => {
  test('totals weigh the load of each node by its CPUs', () => {
    const sum = totals(
      makeSnapshot({
        nodes: [makeNode({ cpus: 6, cpu_ratio: 1 }), makeNode({ cpus: 2, cpu_ratio: 0, memory_used: 750 })]
      })
    );
    assert.deepEqual(sum, { nodes: 2, cpus: 8, cpusUsed: 2, cpuRatio: 0.75, memory: 2000, memoryUsed: 1000 });
  });

  test('a cluster without nodes has totals of zero', () => {
    assert.equal(totals(makeSnapshot()).cpuRatio, 0);
  });

  test('ratios stay between 0 and 1', () => {
    assert.equal(ratio(3, 2), 1);
    assert.equal(ratio(-1, 2), 0);
    assert.equal(ratio(1, 0), 0);
    assert.equal(ratio(NaN, 2), 0);
  });

  const bytes: [number, string][] = [
    [0, '0 B'],
    [999, '999 B'],
    [1000, '0.98 KiB'],
    [1536, '1.50 KiB'],
    [25769803776, '24.0 GiB'],
    [1200000000, '1.12 GiB'],
    [1023 * 1024 ** 2, '1.00 GiB'],
    [500 * 1024 ** 3, '500 GiB'],
    [2 ** 62, '4096 PiB']
  ];
  for (const [nbytes, text] of bytes) {
    test(`${nbytes} bytes read as ${text}`, () => {
      assert.equal(formatBytes(nbytes), text);
    });
  }

  test('numbers and percentages are short', () => {
    assert.equal(formatNumber(2), '2');
    assert.equal(formatNumber(0.1 + 0.2), '0.3');
    assert.equal(formatPercent(0.414), '41 %');
    assert.equal(formatPercent(1.7), '100 %');
  });
});

test('functions that run come first, then those that failed, then the busiest', () => {
  const counts = { running: 0, finished: 0, failed: 0, seconds: 1 };
  const functions = [
    { ...counts, name: 'rare', finished: 1 },
    { ...counts, name: 'busy', finished: 100 },
    { ...counts, name: 'failing', failed: 1 },
    { ...counts, name: 'now', running: 1 }
  ];
  const names = notableFunctions(makeSnapshot({ functions }), 3).map(one => one.name);
  assert.deepEqual(names, ['now', 'failing', 'busy']);
});

test('actors of one class and state are one line', () => {
  const actor = { id: 'actor-1', name: '', class_name: 'Predictor', state: 'alive', node: 'node-1' };
  assert.deepEqual(
    groupActors([actor, { ...actor, name: 'best' }, { ...actor, state: 'dead' }, { ...actor, class_name: 'Env' }]),
    [
      { className: 'Env', state: 'alive', count: 1, names: [] },
      { className: 'Predictor', state: 'alive', count: 2, names: ['best'] },
      { className: 'Predictor', state: 'dead', count: 1, names: [] }
    ]
  );
});

test('a cluster is called by its name, its owner by the file', () => {
  assert.equal(displayName(makeCluster()), 'minnow');
  assert.equal(displayName(makeCluster({ name: '' })), 'cluster-1');
  assert.equal(ownerName(makeCluster()), 'quickstart.ipynb');
  assert.equal(ownerName(makeCluster({ notebook: '' })), '');
});

describe('cells', () => {
  test('the starting cell loads the extension and starts a cluster', () => {
    assert.equal(START_CODE, '%load_ext shoal\nimport shoal\n\nshoal.init()');
  });

  test('the connecting cell names the cluster', () => {
    const cluster = makeCluster();
    assert.match(connectCode(cluster, [cluster]), /^%load_ext shoal\nimport shoal\n\nshoal\.init\("minnow"\)$/);
  });

  test('a name that two clusters bear gives way to the id, and so does no name', () => {
    const cluster = makeCluster();
    assert.match(connectCode(cluster, [cluster, makeCluster({ id: 'cluster-2' })]), /init\("cluster-1"\)/);
    assert.match(connectCode(makeCluster({ name: '' }), []), /init\("cluster-1"\)/);
  });

  test('a name cannot break out of its quotes', () => {
    const cluster = makeCluster({ name: '"); import os; ("\n' });
    assert.ok(connectCode(cluster, [cluster]).endsWith('shoal.init("\\"); import os; (\\"\\n")'));
  });
});
