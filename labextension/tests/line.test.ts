import assert from 'node:assert/strict';
import { beforeEach, describe, mock, test } from 'node:test';

import { LONGEST_PAUSE, Line, SHORTEST_PAUSE } from '../src/line.ts';
import { Socket } from './sockets.ts';

describe('Line', () => {
  let sockets: Socket[];
  let events: string[];
  let line: Line;

  beforeEach(() => {
    mock.timers.reset();
    mock.timers.enable({ apis: ['setTimeout'] });
    sockets = [];
    events = [];
    line = new Line(
      () => {
        const socket = new Socket();
        sockets.push(socket);
        return socket;
      },
      {
        up: () => events.push('up'),
        text: text => events.push(text),
        down: reached => events.push(reached ? 'lost' : 'refused')
      },
      () => 1
    );
  });

  test('says what comes, and sends while somebody listens', () => {
    line.start();
    line.start();
    assert.equal(sockets.length, 1);
    line.send({ too: 'early' });
    sockets[0]?.accept();
    line.send({ type: 'pause' });
    sockets[0]?.say({ a: 1 });
    assert.deepEqual(events, ['up', '{"a":1}']);
    assert.deepEqual(sockets[0]?.heard, [{ type: 'pause' }]);
  });

  test('comes back after longer and longer pauses, and soon again once the server has spoken', () => {
    line.start();
    let pause = SHORTEST_PAUSE;
    for (let attempt = 1; attempt <= 8; attempt += 1) {
      sockets.at(-1)?.drop();
      mock.timers.tick(pause - 1);
      assert.equal(sockets.length, attempt);
      mock.timers.tick(1);
      assert.equal(sockets.length, attempt + 1);
      pause = Math.min(LONGEST_PAUSE, 2 * pause);
    }
    assert.equal(pause, LONGEST_PAUSE);
    sockets.at(-1)?.accept();
    sockets.at(-1)?.say({});
    sockets.at(-1)?.drop();
    mock.timers.tick(SHORTEST_PAUSE);
    assert.equal(sockets.length, 10);
    assert.deepEqual(events.slice(-3), ['up', '{}', 'lost']);
    assert.deepEqual(new Set(events.slice(0, 8)), new Set(['refused']));
  });

  test('stays closed when it is stopped', () => {
    line.start();
    sockets[0]?.accept();
    line.stop();
    sockets[0]?.drop();
    mock.timers.tick(LONGEST_PAUSE);
    assert.equal(sockets[0]?.closed, true);
    assert.equal(line.isUp, false);
    assert.equal(sockets.length, 1);
    line.start();
    assert.equal(sockets.length, 2);
  });

  test('a socket that cannot even be made is one that was refused', () => {
    let tries = 0;
    const broken = new Line(
      () => {
        tries += 1;
        throw new Error('no such address');
      },
      { up: () => undefined, text: () => undefined, down: () => events.push('down') },
      () => 1
    );
    broken.start();
    mock.timers.tick(SHORTEST_PAUSE);
    assert.deepEqual([tries, events.length], [2, 2]);
    broken.stop();
  });
});
