/**
 * What the panel knows about clusters, as plain values and pure functions.
 *
 * Nothing here touches the page, the network or a clock, and nothing is imported, so that the whole
 * of it is tested in milliseconds without a browser.
 */

/** One machine, or one Dask worker on it. */
export interface INode {
  id: string;
  host: string;
  cpus: number;
  cpus_used: number;
  /** Measured load of the node's CPUs, 0 to 1. */
  cpu_ratio: number;
  /** Bytes. */
  memory: number;
  memory_used: number;
  executors: number;
}

export interface IFunctionCounts {
  name: string;
  running: number;
  finished: number;
  failed: number;
  seconds: number;
}

export interface IActor {
  id: string;
  name: string;
  class_name: string;
  state: string;
  node: string;
}

/** The snapshot (version 2) that card, panel and `%remote status` share. */
export interface ISnapshot {
  version: number;
  /** Unix seconds, by the cluster's clock. */
  time: number;
  cluster: { id: string; name: string; address: string; started: number };
  nodes: INode[];
  tasks: { running: number; queued: number; finished: number; failed: number };
  functions: IFunctionCounts[];
  actors: IActor[];
  drivers: number;
}

/** One cluster of this user, as the server extension reports it. */
export interface ICluster {
  id: string;
  name: string;
  address: string;
  kind: 'embedded' | 'attached';
  pid: number;
  host: string;
  created: number;
  notebook: string;
  python: string;
  state: 'running' | 'unreachable';
  message: string;
  snapshot: ISnapshot | null;
}

/** Why the last look failed; each kind has its own words and its own advice in the panel. */
export type ProblemKind = 'not-enabled' | 'not-allowed' | 'no-answer' | 'bad-answer';

export interface IProblem {
  kind: ProblemKind;
  detail: string;
}

export interface IPanelState {
  /** False until the first answer, good or bad. */
  loaded: boolean;
  clusters: readonly ICluster[];
  problem: IProblem | null;
}

export type PanelEvent =
  { type: 'answer'; clusters: readonly ICluster[] } | { type: 'problem'; problem: IProblem };

export const initialState: IPanelState = { loaded: false, clusters: [], problem: null };

/**
 * Compute the next state of the panel.
 *
 * A problem keeps the clusters seen last: the panel says that they are not up to date instead of
 * emptying itself at each hiccup. They go where the server says that it has no such page for us.
 */
export function reduce(state: IPanelState, event: PanelEvent): IPanelState {
  if (event.type === 'answer') {
    return { loaded: true, clusters: sortClusters(event.clusters), problem: null };
  }
  const gone = event.problem.kind === 'not-enabled' || event.problem.kind === 'not-allowed';
  return { loaded: true, clusters: gone ? [] : state.clusters, problem: event.problem };
}

/** The newest cluster first; the id breaks ties, so that cards never swap places between two looks. */
export function sortClusters(clusters: readonly ICluster[]): ICluster[] {
  return [...clusters].sort((a, b) => b.created - a.created || (a.id < b.id ? -1 : 1));
}

/** Tell whether a value parsed from JSON has the shape of the server's answer, as far as it is used. */
export function isAnswer(value: unknown): value is { clusters: ICluster[] } {
  return (
    isRecord(value) &&
    Array.isArray(value.clusters) &&
    value.clusters.every(
      (item: unknown) =>
        isRecord(item) &&
        typeof item.id === 'string' &&
        typeof item.state === 'string' &&
        (item.snapshot === null || isRecord(item.snapshot))
    )
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What all nodes of a cluster have and use together. */
export interface ITotals {
  nodes: number;
  cpus: number;
  cpusUsed: number;
  /** Measured load, 0 to 1, weighted by each node's CPUs. */
  cpuRatio: number;
  memory: number;
  memoryUsed: number;
}

export function totals(snapshot: ISnapshot): ITotals {
  const sum = { nodes: snapshot.nodes.length, cpus: 0, cpusUsed: 0, cpuRatio: 0, memory: 0, memoryUsed: 0 };
  for (const node of snapshot.nodes) {
    sum.cpus += node.cpus;
    sum.cpusUsed += node.cpus_used;
    sum.cpuRatio += node.cpu_ratio * node.cpus;
    sum.memory += node.memory;
    sum.memoryUsed += node.memory_used;
  }
  return { ...sum, cpuRatio: ratio(sum.cpuRatio, sum.cpus) };
}

/** `part / whole` held between 0 and 1; 0 where there is no whole. */
export function ratio(part: number, whole: number): number {
  return whole > 0 && Number.isFinite(part) ? Math.min(1, Math.max(0, part / whole)) : 0;
}

export function formatPercent(value: number): string {
  return `${Math.round(100 * Math.min(1, Math.max(0, value)))} %`;
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/** Three digits at most, in the unit in which they are readable: `1.12 GiB`. */
export function formatBytes(nbytes: number): string {
  let value = Math.max(0, nbytes);
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit] ?? 'B'}`;
}

/** `2`, `0.5`: CPUs may be parts of one, and `2.0` says no more than `2`. */
export function formatNumber(value: number): string {
  return String(Math.round(value * 100) / 100);
}

/** The functions worth a line: those that run now, then those with failures, then the busiest. */
export function notableFunctions(snapshot: ISnapshot, limit: number): IFunctionCounts[] {
  return [...snapshot.functions]
    .sort(
      (a, b) =>
        b.running - a.running ||
        b.failed - a.failed ||
        b.finished - a.finished ||
        (a.name < b.name ? -1 : 1)
    )
    .slice(0, limit);
}

/** Actors of one class in one state: fifty alike are one line, not fifty. */
export interface IActorGroup {
  className: string;
  state: string;
  count: number;
  /** The names given by the user, of those that have one. */
  names: string[];
}

export function groupActors(actors: readonly IActor[]): IActorGroup[] {
  const groups = new Map<string, IActorGroup>();
  for (const actor of actors) {
    const key = `${actor.class_name}\0${actor.state}`;
    const group = groups.get(key) ?? { className: actor.class_name, state: actor.state, count: 0, names: [] };
    group.count += 1;
    if (actor.name) {
      group.names.push(actor.name);
    }
    groups.set(key, group);
  }
  return [...groups.values()].sort((a, b) =>
    a.className === b.className ? (a.state < b.state ? -1 : 1) : a.className < b.className ? -1 : 1
  );
}

/** How the panel calls a cluster: its name, or the start of its id where it has none. */
export function displayName(cluster: ICluster): string {
  return cluster.name || cluster.id;
}

/** The last part of the path of the notebook or script that made a cluster. */
export function ownerName(cluster: ICluster): string {
  return cluster.notebook.split(/[\\/]/).pop() ?? '';
}

/** The cell that starts a cluster, or finds the one that this user has. */
export const START_CODE = ['%load_ext shoal', 'import shoal', '', 'shoal.init()'].join('\n');

/**
 * The cell that attaches a notebook to a cluster of the list.
 *
 * It names the cluster by its name where no other bears the same, else by its id. Both are quoted by the
 * rules of JSON, which are also Python's for every character that may stand in them.
 */
export function connectCode(cluster: ICluster, all: readonly ICluster[]): string {
  const unique = cluster.name && all.filter(other => other.name === cluster.name).length === 1;
  const target = JSON.stringify(unique ? cluster.name : cluster.id);
  return ['%load_ext shoal', 'import shoal', '', `shoal.init(${target})`].join('\n');
}
