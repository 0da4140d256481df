import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { hasMagic, isSupported, optionsInSource, optionsOf, withOptions } from '../src/placement.ts';

test('metadata says where a cell runs', () => {
  assert.equal(optionsOf({ shoal: { remote: '--on all' } }), '--on all');
  assert.equal(optionsOf({ shoal: { remote: '' } }), '');
  for (const metadata of [null, {}, { shoal: 1 }, { shoal: { remote: true } }]) {
    assert.equal(optionsOf(metadata), null);
  }
});

test('what else stands there stays', () => {
  assert.deepEqual(withOptions({ other: 1 }, ' --bg '), { other: 1, remote: '--bg' });
  assert.deepEqual(withOptions({ other: 1, remote: '' }, null), { other: 1 });
  assert.equal(withOptions({ remote: '' }, null), undefined);
  assert.deepEqual(withOptions(undefined, ''), { remote: '' });
});

test('a magic in the cell decides', () => {
  assert.ok(hasMagic('\n%%time\nx'));
  assert.equal(hasMagic('%time x'), false);
  assert.equal(optionsInSource('%%remote --on all\nx'), '--on all');
  assert.equal(optionsInSource('%%remote\nx'), '');
  assert.equal(optionsInSource('%%remotely\nx'), null);
});

describe('isSupported', () => {
  const kernel = {
    implementation: 'ipython',
    implementation_version: '7.3.0',
    banner: 'Python 3.11.7 | IPython 9.16.0 -- An enhanced Interactive Python.'
  };
  const cases: [Partial<typeof kernel>, boolean][] = [
    [{}, true],
    [{ implementation_version: '10.0' }, true],
    [{ implementation_version: '7.2.9' }, false],
    [{ implementation_version: 'unknown' }, false],
    [{ banner: 'IPython 9.15.0' }, false],
    [{ banner: 'IPython 10.0.0' }, true],
    [{ implementation: 'xpython' }, false]
  ];
  for (const [parts, expected] of cases) {
    test(`${JSON.stringify(parts)}: ${expected}`, () => {
      assert.equal(isSupported({ ...kernel, ...parts }), expected);
    });
  }
});
