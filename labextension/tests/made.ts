/** Clusters and snapshots for tests: one of each, with what a test wants different. */

import type { ICluster } from '../src/model.ts';
import type { INode, ISnapshot } from '../src/snapshot.ts';

export const NO_COUNTS = { queued: 0, running: 0, finished: 0, failed: 0, cancelled: 0, seconds: 0 };

/** A row of the server's list. */
export function makeRow(parts: Record<string, unknown> = {}): Record<string, unknown> {
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
    ...parts
  };
}

export function makeCluster(parts: Partial<ICluster> = {}): ICluster {
  return { ...makeRow(), snapshot: null, seen: 0, grid: null, listed: true, ...parts } as ICluster;
}

export function makeNode(parts: Partial<INode> = {}): INode {
  return {
    id: 'node-1',
    host: '127.0.0.1',
    cpus: 2,
    cpus_used: 1,
    cpu_ratio: 0.5,
    memory: 1000,
    memory_used: 250,
    executors: 1,
    store: 100,
    store_used: 10,
    spilled: 0,
    received_per_second: 5,
    gpus: [],
    state: 'alive',
    ...parts
  };
}

export function makeSnapshot(parts: Partial<ISnapshot> = {}): ISnapshot {
  return {
    version: 2,
    time: 200,
    cluster: { id: 'cluster-1', name: 'minnow', address: 'tls://127.0.0.1:43211', started: 100 },
    nodes: [],
    tasks: NO_COUNTS,
    functions: [],
    cells: [],
    actors: [],
    groups: [],
    owners: [],
    waiting: [],
    events: [],
    history: [],
    records: 0,
    drivers: 1,
    ...parts
  };
}
