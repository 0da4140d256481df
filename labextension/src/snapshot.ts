/**
 * What a cluster tells of itself: the shapes of `shoal/observe/cluster_view.py`, version 2.
 *
 * Memory is in bytes, ratios are in 0 to 1, times are Unix seconds by the cluster's clock.
 */

/** How much work there is, and what became of the rest. */
export interface ICounts {
  queued: number;
  running: number;
  finished: number;
  failed: number;
  cancelled: number;
  /** Seconds in user code. */
  seconds: number;
}

export interface IGpu {
  name: string;
  ratio: number;
  memory: number;
  memory_used: number;
}

/** One machine, or one Dask worker on it. */
export interface INode {
  id: string;
  host: string;
  cpus: number;
  /** What tasks and actors have been granted. */
  cpus_used: number;
  /** Measured load of the node's CPUs. */
  cpu_ratio: number;
  memory: number;
  memory_used: number;
  /** Null for a Dask worker without shoal. */
  executors: number | null;
  store: number;
  store_used: number;
  spilled: number;
  received_per_second: number;
  gpus: IGpu[];
  /** `alive`, `draining` or `suspected`. */
  state: string;
}

export interface IFunctionCounts extends ICounts {
  name: string;
}

/** One run of a notebook cell; the id is `name#identity`, see `shoal/model/cells.py`. */
export interface ICell extends ICounts {
  id: string;
  name: string;
  /** The driver that it belongs to. */
  owner: string;
  began: number;
  changed: number;
  functions: IFunctionCounts[];
}

export interface IActor {
  id: string;
  name: string;
  class_name: string;
  /** `pending`, `alive`, `restarting` or `dead`. */
  state: string;
  node: string;
  owner: string;
  restarts: number;
  /** Calls that wait or run in its process. */
  pending: number;
}

export interface IGroup {
  id: string;
  strategy: string;
  state: string;
  bundles: { resources: Record<string, number>; node: string }[];
}

export interface IOwner {
  id: string;
  is_driver: boolean;
  job: string;
  joined: number;
  queued: number;
}

/** Work that has no place, and why. */
export interface IWaiting {
  id: string;
  owner: string;
  what: string;
  count: number;
  reason: string;
}

export interface IEvent {
  number: number;
  time: number;
  kind: string;
  text: string;
}

export interface IPoint {
  time: number;
  running: number;
  queued: number;
  tasks_per_second: number;
  cpu_ratio: number;
  memory_used: number;
  store_used: number;
  received_per_second: number;
}

export interface ISnapshot {
  version: number;
  /** It is what Dask's scheduler tells of a cluster that has no shoal in it: workers, and nothing that only we know. */
  without_shoal?: boolean;
  time: number;
  cluster: { id: string; name: string; address: string; started: number };
  tasks: ICounts;
  nodes: INode[];
  functions: IFunctionCounts[];
  cells: ICell[];
  actors: IActor[];
  groups: IGroup[];
  owners: IOwner[];
  waiting: IWaiting[];
  events: IEvent[];
  history: IPoint[];
  records: number;
  drivers: number;
}

/** What the executors did in the last minute, reduced by the server from the records of work. */
export interface IGrid {
  /** Unix seconds of the end of the newest slice. */
  time: number;
  /** Seconds in one slice. */
  step: number;
  /** The busiest; slices from the oldest to the newest: the function that took most of it, and how much it was busy. */
  executors: { id: string; node: string; slices: [string | null, number][] }[];
}
