import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  curve,
  formatBytes,
  formatNumber,
  formatPercent,
  formatSeconds,
  formatShort,
  ratio
} from '../src/format.ts';

describe('figures', () => {
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

  const short: [number, string][] = [
    [0, '0'],
    [0.04, '0'],
    [9.94, '9.9'],
    [42.4, '42'],
    [999.4, '999'],
    [999.9, '1k'],
    [1234, '1.2k'],
    [12_345, '12k'],
    [3_400_000, '3.4M']
  ];
  for (const [value, text] of short) {
    test(`${value} reads as ${text}`, () => {
      assert.equal(formatShort(value), text);
    });
  }

  const seconds: [number, string][] = [
    [-1, '0 s'],
    [0.254, '0.25 s'],
    [42.4, '42 s'],
    [59.6, '1 min'],
    [185, '3 min 5 s'],
    [7440, '2 h 4 min'],
    [86_400 * 3 + 7200, '3 d 2 h']
  ];
  for (const [value, text] of seconds) {
    test(`${value} seconds read as ${text}`, () => {
      assert.equal(formatSeconds(value), text);
    });
  }

  test('a curve fills its box, and stays in it', () => {
    assert.equal(curve([0, 5, 20], 10, 100, 20), '0,20 50,10 100,0');
    assert.equal(curve([3], 0, 100, 20), '0,20');
    assert.equal(curve([], 1, 100, 20), '');
  });
});
