/** What the panel says of work: pure functions over cells, actors and waiting work. */

import type { IActor, ICell, ICounts, ISnapshot } from './snapshot.ts';
import { ratio } from './format.ts';

export interface IProgress {
  total: number;
  /** Ended in any way. */
  ended: number;
  /** Parts of the whole, each 0 to 1, in the order in which they are drawn. */
  finished: number;
  failed: number;
  cancelled: number;
  running: number;
}

/** How far work is; `total` grows while more is submitted. */
export function progressOf(counts: ICounts): IProgress {
  const { queued, running, finished, failed, cancelled } = counts;
  const ended = finished + failed + cancelled;
  const total = ended + running + queued;
  return {
    total,
    ended,
    finished: ratio(finished, total),
    failed: ratio(failed, total),
    cancelled: ratio(cancelled, total),
    running: ratio(running, total)
  };
}

export function isLive(counts: ICounts): boolean {
  return counts.running > 0 || counts.queued > 0;
}

/** Cells with work that has not ended first; then the newest. */
export function sortCells(cells: readonly ICell[]): ICell[] {
  return [...cells].sort((a, b) => Number(isLive(b)) - Number(isLive(a)) || b.began - a.began);
}

/** The id of the message that ran a cell, from its tag: what Jupyter knows a run by. */
export function runOf(tag: string): string {
  return tag.slice(tag.indexOf('#') + 1).split('/')[0] ?? '';
}

/** The number in `In[3]`; null for cells of scripts and others that have none. */
export function countOf(tag: string): number | null {
  const match = /^In\[(\d+)\]/.exec(tag);
  return match === null ? null : Number(match[1]);
}

/** The drivers, the newest first. */
export function driversOf(snapshot: ISnapshot): string[] {
  return snapshot.owners
    .filter(owner => owner.is_driver)
    .sort((a, b) => b.joined - a.joined)
    .map(owner => owner.id);
}

const ACTOR_ORDER = ['restarting', 'pending', 'alive', 'dead'];

/** Actors that need attention first, then those that live; busy ones before idle ones. */
export function sortActors(actors: readonly IActor[]): IActor[] {
  return [...actors].sort(
    (a, b) =>
      ACTOR_ORDER.indexOf(a.state) - ACTOR_ORDER.indexOf(b.state) ||
      b.pending - a.pending ||
      (a.id < b.id ? -1 : 1)
  );
}

/**
 * What is worth being read out since the last time: clusters that came, went or ended, and work that failed.
 *
 * Figures that change all the time are not.
 */
export interface IAudible {
  clusters: number;
  failed: number;
  state: string;
}

export function newsOf(before: IAudible | null, now: IAudible): (keyof IAudible)[] {
  if (before === null) {
    return ['clusters'];
  }
  const news: (keyof IAudible)[] = [];
  if (before.clusters !== now.clusters) {
    news.push('clusters');
  }
  if (before.state !== now.state) {
    news.push('state');
  }
  if (now.failed > before.failed) {
    news.push('failed');
  }
  return news;
}
