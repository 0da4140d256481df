import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, mock, test } from 'node:test';

import { ClusterStore, LookError } from '../src/store.ts';
import { makeRow, makeSnapshot } from './made.ts';
import { Socket } from './sockets.ts';

/** Let promises that are settled be noticed. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn += 1) {
    await Promise.resolve();
  }
}

describe('ClusterStore', () => {
  let sockets: Socket[];
  let looks: number;
  let answer: () => Promise<readonly Record<string, unknown>[]>;
  let store: ClusterStore;

  beforeEach(() => {
    mock.timers.enable({ apis: ['setTimeout'] });
    sockets = [];
    looks = 0;
    answer = () => Promise.resolve([makeRow({ snapshot: makeSnapshot() })]);
    store = new ClusterStore({
      open: () => {
        const socket = new Socket();
        sockets.push(socket);
        return socket;
      },
      list: () => {
        looks += 1;
        return answer();
      }
    });
  });

  afterEach(() => {
    store.dispose();
    mock.timers.reset();
  });

  function socket(): Socket {
    const last = sockets.at(-1);
    assert.ok(last);
    return last;
  }

  function greet(...rows: Record<string, unknown>[]): void {
    socket().accept();
    socket().say({ type: 'hello', version: 1, shoal: '0.1.0' });
    socket().say({ type: 'clusters', clusters: rows });
  }

  test('nobody watches: the server is left alone', () => {
    mock.timers.tick(60_000);
    assert.deepEqual([sockets.length, looks], [0, 0]);
  });

  test('is told by the server, without asking', () => {
    store.watch();
    greet(makeRow(), makeRow({ id: 'start-1', state: 'starting' }));
    socket().say({ type: 'snapshot', cluster: 'cluster-1', snapshot: makeSnapshot() });
    socket().say({ type: 'delta', cluster: 'cluster-1', delta: { time: 300 } });
    mock.timers.tick(60_000);
    assert.equal(looks, 0);
    assert.equal(store.cluster?.snapshot?.time, 300);
    assert.deepEqual(socket().heard.at(-1), {
      type: 'watch',
      clusters: ['cluster-1'],
      interval: 1,
      grid: false
    });
  });

  test('asks for the grid while somebody looks at it, and for the interval of the settings', () => {
    store.watch();
    greet(makeRow());
    store.watchGrid();
    assert.equal(socket().heard.at(-1)?.grid, true);
    store.refreshSeconds = 60;
    assert.equal(socket().heard.at(-1)?.interval, 5);
    store.unwatchGrid();
    const said = socket().heard.length;
    assert.equal(socket().heard.at(-1)?.grid, false);
    socket().say({ type: 'clusters', clusters: [makeRow()] });
    assert.equal(socket().heard.length, said, 'the same is not said twice');
  });

  test('the cluster chosen is watched first, and stays chosen', () => {
    store.watch();
    greet(makeRow({ id: 'a', created: 2 }), makeRow({ id: 'b', created: 1 }));
    store.choose('b');
    assert.deepEqual(socket().heard.at(-1)?.clusters, ['b', 'a']);
    assert.equal(store.cluster?.id, 'b');
  });

  test('no websocket: asks again and again, until there is one', async () => {
    store.watch();
    socket().drop();
    mock.timers.tick(0);
    await settle();
    assert.equal(looks, 1);
    assert.equal(store.state.transport, 'polling');
    mock.timers.tick(1000);
    await settle();
    assert.equal(looks, 2);
    socket().drop();
    mock.timers.tick(1000);
    await settle();
    greet(makeRow());
    const before = looks;
    mock.timers.tick(60_000);
    await settle();
    assert.equal(looks, before);
    assert.equal(store.state.transport, 'live');
  });

  test('a websocket that does not open is not waited for', async () => {
    store.watch();
    mock.timers.tick(1000);
    await settle();
    assert.equal(store.state.clusters.length, 1);
  });

  test('what fails is asked for less and less often, and said', async () => {
    answer = () => Promise.reject(new LookError({ kind: 'not-enabled', detail: '404' }));
    store.watch();
    socket().drop();
    mock.timers.tick(0);
    await settle();
    assert.equal(store.state.problem?.kind, 'not-enabled');
    let seconds = 0;
    while (looks < 4) {
      mock.timers.tick(1000);
      await settle();
      seconds += 1;
    }
    assert.ok(seconds >= 2 + 4, `after ${seconds} s`);
  });

  test('an error of another kind is an answer that cannot be read', async () => {
    answer = () => Promise.reject(new TypeError('oops'));
    await store.refresh();
    assert.deepEqual(store.state.problem, { kind: 'bad-answer', detail: 'TypeError: oops' });
  });

  test('is paused while the page or the panel is hidden', async () => {
    store.watch();
    greet(makeRow());
    store.hidden = true;
    assert.deepEqual(socket().heard.at(-1), { type: 'pause' });
    store.hidden = false;
    assert.ok(socket().heard.some(message => message.type === 'resume'));
    store.unwatch();
    assert.deepEqual(socket().heard.at(-1), { type: 'pause' });
    socket().drop();
    mock.timers.tick(60_000);
    await settle();
    assert.equal(looks, 0, 'asked though nobody watches');
    socket().accept();
    assert.deepEqual(socket().heard, [{ type: 'pause' }], 'a line that is back while nobody watches');
    store.watch();
    greet(makeRow());
    assert.deepEqual(
      socket().heard.map(message => message.type),
      ['pause', 'resume', 'watch', 'watch']
    );
  });

  test('begins anew when what is told does not fit what is known', () => {
    store.watch();
    greet(makeRow());
    const first = socket();
    first.say({ type: 'delta', cluster: 'cluster-1', delta: { time: 300 } });
    assert.equal(first.closed, true);
    assert.equal(sockets.length, 2);
    greet(makeRow());
    assert.deepEqual(socket().heard.at(-1)?.clusters, ['cluster-1']);
  });

  test('a server of another version is left alone, and said to be so', async () => {
    store.watch();
    socket().accept();
    socket().say({ type: 'hello', version: 9, shoal: '9.0' });
    mock.timers.tick(60_000);
    await settle();
    assert.equal(store.state.problem?.kind, 'versions');
    assert.deepEqual([sockets.length, looks, socket().closed], [1, 0, true]);
  });

  test('several who ask at once share the answer', async () => {
    await Promise.all([store.refresh(), store.refresh()]);
    assert.equal(looks, 1);
  });
});
