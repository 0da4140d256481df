import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PanelSections, type IPanelSection } from '../src/sections.ts';

function section(id: string, rank: number): IPanelSection {
  return { id, title: id, rank, render: () => null };
}

test('sections stand by rank, whoever comes first, and can go again', () => {
  const sections = new PanelSections();
  let changes = 0;
  sections.changed.connect(() => {
    changes += 1;
  });
  sections.add(section('trials', 60));
  const live = sections.add(section('live', 20));
  sections.add(section('jobs', 60));
  const ids = (): string[] => sections.all.map(one => one.id);
  assert.deepEqual(ids(), ['live', 'jobs', 'trials']);
  live.dispose();
  live.dispose();
  assert.deepEqual(ids(), ['jobs', 'trials']);
  assert.equal(changes, 4);
});

test('an id is there once, and is one', () => {
  const sections = new PanelSections();
  sections.add(section('jobs', 60));
  assert.throws(() => sections.add(section('jobs', 70)), /already/);
  assert.throws(() => sections.add(section('two words', 70)), /letters/);
});
