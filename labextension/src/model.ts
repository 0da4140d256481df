/**
 * What the panel knows about clusters, as plain values and pure functions.
 *
 * Nothing here touches the page, the network or a clock, so that the whole of it is tested in milliseconds
 * without a browser. What comes from the server is an event; `reduce` makes the next state of it.
 */

import { apply } from './deltas.ts';
import type { IFunctionCounts, IGrid, ISnapshot } from './snapshot.ts';
import { ratio } from './format.ts';

/** The version of the messages on the websocket that this panel understands. */
export const PROTOCOL_VERSION = 1;
/** The version of the snapshot, likewise. */
export const SNAPSHOT_VERSION = 2;

export type ClusterState = 'running' | 'unreachable' | 'starting' | 'ended';

/** One cluster of this user, as the server extension reports it. */
export interface ICluster {
  /** While it starts: the id of the start. */
  id: string;
  name: string;
  address: string;
  /** `embedded` in its driver's life, `attached` to a Dask cluster, `detached` from any driver; else its entry is damaged. */
  kind: 'embedded' | 'attached' | 'detached' | 'unreadable';
  pid: number;
  host: string;
  created: number;
  notebook: string;
  python: string;
  state: ClusterState;
  message: string;
  /** The newest there has been; also of a cluster that does not answer any more. */
  snapshot: ISnapshot | null;
  /** When the snapshot came, in seconds by this page's clock; 0 without one. */
  seen: number;
  grid: IGrid | null;
  /** Whether the server lists it; one that ended is kept longer. */
  listed: boolean;
}

/** Why there is nothing new; each kind has its own words and its own advice in the panel. */
export type ProblemKind = 'not-enabled' | 'not-allowed' | 'no-answer' | 'bad-answer' | 'versions';

export interface IProblem {
  kind: ProblemKind;
  detail: string;
}

/** A word of the server about a cluster. */
export interface INotice {
  number: number;
  cluster: string;
  level: 'info' | 'warning';
  message: string;
}

export interface IPanelState {
  /** False until the first answer, good or bad. */
  loaded: boolean;
  /** `live`: told by the server as it happens; `polling`: asked for every few seconds. */
  transport: 'none' | 'live' | 'polling';
  clusters: readonly ICluster[];
  problem: IProblem | null;
  notices: readonly INotice[];
}

type Json = Record<string, unknown>;

/** What the server says on the websocket, as far as it is understood. */
export type ServerMessage =
  | { type: 'hello'; version: number; shoal: string }
  | { type: 'clusters'; clusters: Json[] }
  | { type: 'snapshot'; cluster: string; snapshot: Json }
  | { type: 'delta'; cluster: string; delta: Json }
  | ({ type: 'grid'; cluster: string } & IGrid)
  | { type: 'ended'; cluster: string; message: string }
  | { type: 'notice'; cluster: string; level: 'info' | 'warning'; message: string };

/** `now` is in seconds by this page's clock. */
export type PanelEvent =
  | { type: 'answer'; clusters: readonly Json[]; now: number }
  | { type: 'problem'; problem: IProblem }
  | { type: 'message'; message: ServerMessage; now: number }
  | { type: 'line-lost' }
  /** Somebody has read a notice, or does not want to see an ended cluster any more. */
  | { type: 'dismiss'; notice: number }
  | { type: 'forget'; cluster: string };

export const initialState: IPanelState = {
  loaded: false,
  transport: 'none',
  clusters: [],
  problem: null,
  notices: []
};

/** Notices shown at most: the newest. */
const MOST_NOTICES = 3;

/**
 * Compute the next state of the panel.
 *
 * A problem keeps the clusters seen last: the panel says that they are not up to date instead of
 * emptying itself at each hiccup. They go where the server says that it has no such page for us.
 *
 * Raises `Error` if a delta does not fit the snapshot before it: whoever gets that asks for a new one.
 */
export function reduce(state: IPanelState, event: PanelEvent): IPanelState {
  switch (event.type) {
    case 'answer': {
      // Changes that are still to come are changes of what came on the websocket.
      const live = state.transport === 'live';
      const rows = live ? event.clusters.map(row => ({ ...row, snapshot: null })) : event.clusters;
      return {
        ...state,
        loaded: true,
        transport: live ? 'live' : 'polling',
        clusters: merge(state.clusters, rows, event.now),
        problem: null
      };
    }
    case 'line-lost':
      return { ...state, transport: 'none' };
    case 'problem': {
      const { kind } = event.problem;
      const gone = kind === 'not-enabled' || kind === 'not-allowed' || kind === 'versions';
      return {
        ...state,
        loaded: true,
        transport: 'none',
        clusters: gone ? [] : state.clusters,
        problem: event.problem
      };
    }
    case 'message':
      return receive(state, event.message, event.now);
    case 'dismiss':
      return { ...state, notices: state.notices.filter(notice => notice.number !== event.notice) };
    case 'forget':
      return { ...state, clusters: state.clusters.filter(one => one.id !== event.cluster) };
  }
}

function receive(state: IPanelState, message: ServerMessage, now: number): IPanelState {
  switch (message.type) {
    case 'hello':
      return message.version === PROTOCOL_VERSION
        ? state
        : reduce(state, { type: 'problem', problem: { kind: 'versions', detail: `shoal ${message.shoal}` } });
    case 'clusters':
      return {
        ...state,
        loaded: true,
        transport: 'live',
        clusters: merge(state.clusters, message.clusters, now),
        problem: null
      };
    case 'snapshot':
      return change(state, message.cluster, one => ({ ...one, ...reading(message.snapshot, now) }));
    case 'delta':
      return change(state, message.cluster, one => {
        if (one.snapshot === null) {
          throw new Error(`a change of cluster ${one.id} came before its snapshot`);
        }
        return { ...one, snapshot: apply(one.snapshot, message.delta), seen: now };
      });
    case 'grid': {
      const { time, step, executors } = message;
      return change(state, message.cluster, one => ({ ...one, grid: { time, step, executors } }));
    }
    case 'ended':
      return change(state, message.cluster, one => ({
        ...one,
        state: 'ended',
        message: message.message,
        grid: null
      }));
    case 'notice': {
      const number = 1 + Math.max(0, ...state.notices.map(notice => notice.number));
      const notice = { number, cluster: message.cluster, level: message.level, message: message.message };
      const others = state.notices.filter(
        one => one.cluster !== notice.cluster || one.message !== notice.message
      );
      return { ...state, notices: [...others, notice].slice(-MOST_NOTICES) };
    }
  }
}

function change(state: IPanelState, id: string, edit: (cluster: ICluster) => ICluster): IPanelState {
  return { ...state, clusters: state.clusters.map(one => (one.id === id ? edit(one) : one)) };
}

/** What a snapshot makes known; one of another version says so instead of being shown wrongly. */
function reading(snapshot: Json, now: number): Pick<ICluster, 'snapshot' | 'seen'> & { message?: string } {
  return snapshot.version === SNAPSHOT_VERSION
    ? { snapshot: complete(snapshot), seen: now }
    : {
        snapshot: null,
        seen: 0,
        message: `The cluster reports its state in version ${String(snapshot.version)}, this panel reads version ${SNAPSHOT_VERSION}. Use the same version of shoal in both.`
      };
}

/**
 * The list that the server gives, with what was known before where it says nothing newer.
 *
 * A cluster that has ended unasked leaves the server's list, and stays in ours, with its last data, until
 * somebody has seen that.
 */
function merge(known: readonly ICluster[], rows: readonly Json[], now: number): ICluster[] {
  const before = new Map(known.map(one => [one.id, one]));
  const listed = rows.map(row => {
    const old = before.get(String(row.id));
    const base = { ...blank, snapshot: old?.snapshot ?? null, seen: old?.seen ?? 0, grid: old?.grid ?? null };
    const { snapshot, ...rest } = row;
    return { ...base, ...rest, ...(isRecord(snapshot) ? reading(snapshot, now) : {}) } as ICluster;
  });
  const ids = new Set(listed.map(one => one.id));
  const ended = known.filter(one => one.state === 'ended' && one.snapshot !== null && !ids.has(one.id));
  return sortClusters([...listed, ...ended.map(one => ({ ...one, listed: false }))]);
}

const blank: Omit<ICluster, 'id' | 'state'> = {
  name: '',
  address: '',
  kind: 'attached',
  pid: 0,
  host: '',
  created: 0,
  notebook: '',
  python: '',
  message: '',
  snapshot: null,
  seen: 0,
  grid: null,
  listed: true
};

const NO_COUNTS = { queued: 0, running: 0, finished: 0, failed: 0, cancelled: 0, seconds: 0 };

/** A snapshot with all of its tables, so that nobody who draws it has to ask whether they are there. */
function complete(snapshot: Json): ISnapshot {
  return {
    nodes: [],
    functions: [],
    cells: [],
    actors: [],
    groups: [],
    owners: [],
    waiting: [],
    events: [],
    history: [],
    records: 0,
    drivers: 0,
    ...snapshot,
    tasks: { ...NO_COUNTS, ...(isRecord(snapshot.tasks) ? snapshot.tasks : {}) }
  } as unknown as ISnapshot;
}

/** The newest cluster first; the id breaks ties, so that cards never swap places between two looks. */
export function sortClusters(clusters: readonly ICluster[]): ICluster[] {
  return [...clusters].sort((a, b) => b.created - a.created || (a.id < b.id ? -1 : 1));
}

/** Read a message of the websocket; null if it is none that this panel understands. */
export function parseMessage(text: string): ServerMessage | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isRecord(value)) {
    return null;
  }
  const good = {
    hello: () => typeof value.version === 'number',
    clusters: () => Array.isArray(value.clusters) && value.clusters.every(isRow),
    snapshot: () => isRecord(value.snapshot),
    delta: () => isRecord(value.delta),
    grid: () => Array.isArray(value.executors) && typeof value.step === 'number',
    ended: () => typeof value.message === 'string',
    notice: () => typeof value.message === 'string'
  }[String(value.type)];
  const named = value.type === 'hello' || value.type === 'clusters' || typeof value.cluster === 'string';
  return named && good?.() === true ? (value as unknown as ServerMessage) : null;
}

/** Tell whether a value parsed from JSON has the shape of the answer to `GET clusters`, as far as it is used. */
export function isAnswer(value: unknown): value is { clusters: Json[] } {
  return (
    isRecord(value) &&
    Array.isArray(value.clusters) &&
    value.clusters.every(
      (item: unknown) => isRow(item) && (item.snapshot === undefined || item.snapshot === null || isRecord(item.snapshot))
    )
  );
}

function isRow(item: unknown): item is Json {
  return isRecord(item) && typeof item.id === 'string' && typeof item.state === 'string';
}

export function isRecord(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The cluster that the sections show: the one chosen, else the newest that runs, else the newest. */
export function chosenCluster(clusters: readonly ICluster[], id: string): ICluster | null {
  return (
    clusters.find(one => one.id === id) ??
    clusters.find(one => one.state === 'running') ??
    clusters[0] ??
    null
  );
}

/** Whether what is shown of a cluster is not how it is now. */
export function isStale(cluster: ICluster): boolean {
  return cluster.snapshot !== null && cluster.state !== 'running';
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
  store: number;
  storeUsed: number;
  spilled: number;
  receivedPerSecond: number;
}

export function totals(snapshot: ISnapshot): ITotals {
  const sum = {
    nodes: snapshot.nodes.length,
    cpus: 0,
    cpusUsed: 0,
    cpuRatio: 0,
    memory: 0,
    memoryUsed: 0,
    store: 0,
    storeUsed: 0,
    spilled: 0,
    receivedPerSecond: 0
  };
  for (const node of snapshot.nodes) {
    sum.cpus += node.cpus;
    sum.cpusUsed += node.cpus_used;
    sum.cpuRatio += node.cpu_ratio * node.cpus;
    sum.memory += node.memory;
    sum.memoryUsed += node.memory_used;
    sum.store += node.store;
    sum.storeUsed += node.store_used;
    sum.spilled += node.spilled;
    sum.receivedPerSecond += node.received_per_second;
  }
  return { ...sum, cpuRatio: ratio(sum.cpuRatio, sum.cpus) };
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
  const target = JSON.stringify(handleOf(cluster, all));
  return ['%load_ext shoal', 'import shoal', '', `shoal.init(${target})`].join('\n');
}

/**
 * What has a kernel use a cluster of the list, without a name of its own in the user's variables.
 *
 * Only what a line of a magic takes as one word gets into it; raises `Error` if neither name nor id is one.
 */
export function joinCode(cluster: ICluster, all: readonly ICluster[]): string {
  const handle = [handleOf(cluster, all), cluster.id].find(one => /^[A-Za-z0-9][\w.-]*$/.test(one));
  if (handle === undefined) {
    throw new Error(`“${cluster.id}” is no id of a cluster.`);
  }
  return ['%load_ext shoal', `%remote use ${handle}`].join('\n');
}

function handleOf(cluster: ICluster, all: readonly ICluster[]): string {
  const unique = cluster.name !== '' && all.filter(other => other.name === cluster.name).length === 1;
  return unique ? cluster.name : cluster.id;
}
