import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  START_CODE,
  chosenCluster,
  connectCode,
  displayName,
  initialState,
  isAnswer,
  isStale,
  joinCode,
  notableFunctions,
  ownerName,
  parseMessage,
  reduce,
  sortClusters,
  totals,
  type IPanelState,
  type IProblem,
  type ServerMessage
} from '../src/model.ts';
import { NO_COUNTS, makeCluster, makeNode, makeRow, makeSnapshot } from './made.ts';

const wired = (snapshot = makeSnapshot()): Record<string, unknown> => ({ ...snapshot });

describe('reduce, asked', () => {
  const answered = reduce(initialState, { type: 'answer', clusters: [makeRow()], now: 1 });
  const problem = (kind: IProblem['kind']): IProblem => ({ kind, detail: 'why' });

  test('an answer replaces what was known and clears the problem', () => {
    const troubled = reduce(answered, { type: 'problem', problem: problem('no-answer') });
    const next = reduce(troubled, { type: 'answer', clusters: [], now: 2 });
    assert.deepEqual(next, { loaded: true, transport: 'polling', clusters: [], problem: null, notices: [] });
  });

  for (const kind of ['no-answer', 'bad-answer'] as const) {
    test(`${kind}: the clusters seen last stay`, () => {
      const next = reduce(answered, { type: 'problem', problem: problem(kind) });
      assert.deepEqual(next.clusters, answered.clusters);
      assert.equal(next.problem?.kind, kind);
    });
  }

  for (const kind of ['not-enabled', 'not-allowed', 'versions'] as const) {
    test(`${kind}: what may not be seen any more is not shown any more`, () => {
      const next = reduce(answered, { type: 'problem', problem: problem(kind) });
      assert.deepEqual(next.clusters, []);
    });
  }

  test('a first look that fails counts as loaded', () => {
    assert.equal(reduce(initialState, { type: 'problem', problem: problem('no-answer') }).loaded, true);
  });

  test('states are not changed in place', () => {
    reduce(answered, { type: 'answer', clusters: [], now: 2 });
    assert.equal(answered.clusters.length, 1);
  });

  test('a cluster that does not answer keeps its last data, with their time', () => {
    const seen = reduce(initialState, { type: 'answer', clusters: [makeRow({ snapshot: wired() })], now: 5 });
    const lost = { ...makeRow(), state: 'unreachable', message: 'no answer', snapshot: null };
    const [cluster] = reduce(seen, { type: 'answer', clusters: [lost], now: 9 }).clusters;
    assert.ok(cluster);
    assert.deepEqual([cluster.state, cluster.seen, cluster.snapshot?.time], ['unreachable', 5, 200]);
    assert.ok(isStale(cluster));
  });

  test('a snapshot of another version is not shown, and said to be so', () => {
    const row = makeRow({ snapshot: { ...wired(), version: 3 } });
    const [cluster] = reduce(initialState, { type: 'answer', clusters: [row], now: 1 }).clusters;
    assert.equal(cluster?.snapshot, null);
    assert.match(cluster.message, /version 3.*version 2/);
  });

  test('tables that a snapshot lacks are empty', () => {
    const row = makeRow({ snapshot: { version: 2, time: 1, cluster: {}, tasks: { running: 1 } } });
    const [cluster] = reduce(initialState, { type: 'answer', clusters: [row], now: 1 }).clusters;
    assert.deepEqual(cluster?.snapshot?.cells, []);
    assert.deepEqual(cluster.snapshot.tasks, { ...NO_COUNTS, running: 1 });
  });
});

describe('reduce, told', () => {
  function tell(state: IPanelState, ...messages: ServerMessage[]): IPanelState {
    return messages.reduce((one, message, index) => reduce(one, { type: 'message', message, now: index }), state);
  }
  const listed: ServerMessage = { type: 'clusters', clusters: [makeRow()] };
  const shown: ServerMessage = {
    type: 'snapshot',
    cluster: 'cluster-1',
    snapshot: wired(makeSnapshot({ nodes: [makeNode()] }))
  };

  test('list, snapshot and changes build up what is shown', () => {
    const delta = { time: 201, nodes: { changed: [{ id: 'node-1', cpu_ratio: 0.9 }] } };
    const state = tell(
      initialState,
      { type: 'hello', version: 1, shoal: '0.1.0' },
      listed,
      shown,
      { type: 'delta', cluster: 'cluster-1', delta }
    );
    assert.deepEqual([state.loaded, state.transport], [true, 'live']);
    const [cluster] = state.clusters;
    assert.deepEqual(cluster?.snapshot?.nodes, [makeNode({ cpu_ratio: 0.9 })]);
    assert.deepEqual([cluster.snapshot.time, cluster.seen], [201, 3]);
  });

  test('a new list keeps what the server has told of each cluster', () => {
    const state = tell(initialState, listed, shown, {
      type: 'clusters',
      clusters: [makeRow(), makeRow({ id: 'start-1', state: 'starting', created: 200 })]
    });
    assert.deepEqual(
      state.clusters.map(one => [one.id, one.state, one.snapshot !== null]),
      [
        ['start-1', 'starting', false],
        ['cluster-1', 'running', true]
      ]
    );
  });

  test('an answer to a question meanwhile does not touch what changes are changes of', () => {
    const state = tell(initialState, listed, shown);
    const row = makeRow({ message: 'well', snapshot: wired(makeSnapshot({ time: 1 })) });
    const next = reduce(state, { type: 'answer', clusters: [row], now: 9 });
    assert.deepEqual(
      [next.transport, next.clusters[0]?.message, next.clusters[0]?.snapshot?.time],
      ['live', 'well', 200]
    );
  });

  test('a change without a snapshot, or one that does not fit, is an error', () => {
    const delta: ServerMessage = { type: 'delta', cluster: 'cluster-1', delta: { time: 1 } };
    assert.throws(() => tell(initialState, listed, delta), /before its snapshot/);
    const misfit: ServerMessage = {
      type: 'delta',
      cluster: 'cluster-1',
      delta: { nodes: { order: ['node-1', 'node-2'] } }
    };
    assert.throws(() => tell(initialState, listed, shown, misfit), /node-2/);
  });

  test('what is told of clusters that are not listed is ignored', () => {
    const state = tell(initialState, listed);
    assert.deepEqual(tell(state, { ...shown, cluster: 'cluster-9' }).clusters, state.clusters);
  });

  test('a cluster that ended stays with its last data until somebody has seen it', () => {
    const ended = tell(initialState, listed, shown, {
      type: 'ended',
      cluster: 'cluster-1',
      message: 'The cluster has ended.'
    });
    const gone = tell(ended, { type: 'clusters', clusters: [] });
    const [cluster] = gone.clusters;
    assert.deepEqual([cluster?.state, cluster?.message], ['ended', 'The cluster has ended.']);
    assert.equal(cluster?.snapshot?.nodes.length, 1);
    assert.deepEqual(reduce(gone, { type: 'forget', cluster: 'cluster-1' }).clusters, []);
  });

  test('a server of another version is not listened to', () => {
    const state = tell(initialState, listed, { type: 'hello', version: 2, shoal: '0.9.0' });
    assert.deepEqual([state.problem?.kind, state.problem?.detail, state.clusters.length], ['versions', 'shoal 0.9.0', 0]);
  });

  test('notices are kept once each, the newest three, until they are dismissed', () => {
    const notice = (message: string): ServerMessage => ({
      type: 'notice',
      cluster: 'cluster-1',
      level: 'info',
      message
    });
    const state = tell(initialState, notice('a'), notice('b'), notice('a'), notice('c'), notice('d'));
    assert.deepEqual(
      state.notices.map(one => one.message),
      ['a', 'c', 'd']
    );
    const [first] = state.notices;
    assert.ok(first);
    assert.equal(reduce(state, { type: 'dismiss', notice: first.number }).notices.length, 2);
  });

  test('when the line is lost, what was shown stays', () => {
    const state = reduce(tell(initialState, listed, shown), { type: 'line-lost' });
    assert.deepEqual([state.transport, state.clusters[0]?.snapshot?.time], ['none', 200]);
  });
});

describe('parseMessage', () => {
  test('takes what the server sends', () => {
    for (const message of [
      { type: 'hello', version: 1, shoal: '0.1.0' },
      { type: 'clusters', clusters: [makeRow()] },
      { type: 'snapshot', cluster: 'a', snapshot: {} },
      { type: 'delta', cluster: 'a', delta: {} },
      { type: 'grid', cluster: 'a', time: 1, step: 1, executors: [] },
      { type: 'ended', cluster: 'a', message: '' },
      { type: 'notice', cluster: 'a', level: 'info', message: '' }
    ]) {
      assert.deepEqual(parseMessage(JSON.stringify(message)), message);
    }
  });

  for (const wrong of [
    'no json',
    '1',
    '{"type":"constructor"}',
    '{"type":"new in version 2","cluster":"a"}',
    '{"type":"delta","delta":{}}',
    '{"type":"clusters","clusters":[{"id":1}]}'
  ]) {
    test(`ignores ${wrong}`, () => {
      assert.equal(parseMessage(wrong), null);
    });
  }
});

test('the cluster shown is the one chosen, else one that runs', () => {
  const [old, lost] = [makeCluster({ id: 'old' }), makeCluster({ id: 'lost', state: 'unreachable' })];
  assert.equal(chosenCluster([lost, old], 'lost')?.id, 'lost');
  assert.equal(chosenCluster([lost, old], 'gone')?.id, 'old');
  assert.equal(chosenCluster([lost], '')?.id, 'lost');
  assert.equal(chosenCluster([], 'old'), null);
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
    assert.deepEqual(sum, {
      nodes: 2,
      cpus: 8,
      cpusUsed: 2,
      cpuRatio: 0.75,
      memory: 2000,
      memoryUsed: 1000,
      store: 200,
      storeUsed: 20,
      spilled: 0,
      receivedPerSecond: 10
    });
  });

  test('a cluster without nodes has totals of zero', () => {
    assert.equal(totals(makeSnapshot()).cpuRatio, 0);
  });
});

test('functions that run come first, then those that failed, then the busiest', () => {
  const counts = { ...NO_COUNTS, seconds: 1 };
  const functions = [
    { ...counts, name: 'rare', finished: 1 },
    { ...counts, name: 'busy', finished: 100 },
    { ...counts, name: 'failing', failed: 1 },
    { ...counts, name: 'now', running: 1 }
  ];
  const names = notableFunctions(makeSnapshot({ functions }), 3).map(one => one.name);
  assert.deepEqual(names, ['now', 'failing', 'busy']);
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

  test('the kernel is told what to use by name, and by id where the name would not do', () => {
    const cluster = makeCluster();
    assert.equal(joinCode(cluster, [cluster]), '%load_ext shoal\n%remote use minnow');
    assert.match(joinCode(makeCluster({ name: 'a b; !ls' }), []), /use cluster-1$/);
    assert.throws(() => joinCode(makeCluster({ name: '', id: 'x\n!ls' }), []), /no id/);
  });

  test('a name cannot break out of its quotes', () => {
    const cluster = makeCluster({ name: '"); import os; ("\n' });
    assert.ok(connectCode(cluster, [cluster]).endsWith('shoal.init("\\"); import os; (\\"\\n")'));
  });
});
