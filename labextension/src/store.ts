import { Token } from '@lumino/coreutils';
import { Signal, type ISignal } from '@lumino/signaling';

import { Line, type ISocket } from './line.ts';
import {
  chosenCluster,
  initialState,
  parseMessage,
  reduce,
  type ICluster,
  type IPanelState,
  type IProblem,
  type PanelEvent
} from './model.ts';

/** The clusters of this user, for the panel and for any other plugin that wants to show them. */
export interface IClusterStore {
  readonly state: IPanelState;
  readonly changed: ISignal<IClusterStore, IPanelState>;
  /** The cluster that the sections show. */
  readonly cluster: ICluster | null;
  /** Show this cluster; "" for the newest that runs. */
  choose(id: string): void;
  readonly chosen: ISignal<IClusterStore, string>;
  /** Look now; resolves when the answer is in. */
  refresh(): Promise<void>;
  /** Begin to look; the first watcher of some also gets an answer at once. */
  watch(): void;
  /** One watcher less; without any, the server is left alone. */
  unwatch(): void;
  /** As `watch` and `unwatch`, for what each executor does. */
  watchGrid(): void;
  unwatchGrid(): void;
  dismiss(notice: number): void;
  /** Show an ended cluster no longer. */
  forget(cluster: string): void;
}

export const IClusterStore = new Token<IClusterStore>(
  'shoal-labextension:IClusterStore',
  'The shoal clusters of this user, kept up to date while somebody watches.'
);

/** A look at the clusters that failed, with the reason in the panel's terms. */
export class LookError extends Error {
  readonly problem: IProblem;

  constructor(problem: IProblem) {
    super(problem.detail);
    this.name = 'LookError';
    this.problem = problem;
  }
}

export interface IStoreOptions {
  /** Open the websocket. */
  open: () => ISocket;
  /** Ask for the list of clusters, with their snapshots; rejects with a `LookError`. */
  list: () => Promise<readonly Record<string, unknown>[]>;
}

/** No matter how long the server is silent, the panel finds it again within this time. */
const LONGEST_PAUSE_MS = 30_000;
/** A websocket that is not open after this is not waited for: the list is asked for meanwhile. */
const PATIENCE_MS = 1000;
/** Clusters told about as they change; more than these are a mistake rather than a wish. */
const MOST_WATCHED = 8;

/**
 * Keeps what the server tells of the clusters while somebody watches.
 *
 * The server tells it on a websocket. Where there is none (an older server part, a proxy that lets none through) the
 * list is asked for every few seconds, less and less often if that fails. While the page or the panel is hidden
 * neither happens.
 */
export class ClusterStore implements IClusterStore {
  constructor(options: IStoreOptions) {
    this._list = options.list;
    this._line = new Line(options.open, {
      up: () => {
        this._watched = '';
        if (this._isActive) {
          this._tellWhatToWatch();
        } else {
          this._line.send({ type: 'pause' });
        }
      },
      text: text => {
        this._receive(text);
      },
      down: () => {
        this._handle({ type: 'line-lost' });
        if (this._isActive) {
          this._pollAfter(0);
        }
      }
    });
  }

  get state(): IPanelState {
    return this._state;
  }

  get changed(): ISignal<IClusterStore, IPanelState> {
    return this._changed;
  }

  get cluster(): ICluster | null {
    return chosenCluster(this._state.clusters, this._choice);
  }

  get chosen(): ISignal<IClusterStore, string> {
    return this._chosen;
  }

  /** Seconds between two looks. */
  set refreshSeconds(seconds: number) {
    this._seconds = seconds;
    this._tellWhatToWatch();
  }

  /** Whether the page is hidden: nobody sees what would be told. */
  set hidden(hidden: boolean) {
    const before = this._isActive;
    this._hidden = hidden;
    this._activityMayHaveChanged(before);
  }

  choose(id: string): void {
    if (id !== this._choice) {
      this._choice = id;
      this._tellWhatToWatch();
      this._chosen.emit(id);
      this._changed.emit(this._state);
    }
  }

  async refresh(): Promise<void> {
    if (this._state.problem?.kind !== 'versions') {
      this._line.start();
    }
    await this._look();
  }

  watch(): void {
    const before = this._isActive;
    this._watchers += 1;
    this._activityMayHaveChanged(before);
  }

  unwatch(): void {
    const before = this._isActive;
    this._watchers = Math.max(0, this._watchers - 1);
    this._activityMayHaveChanged(before);
  }

  watchGrid(): void {
    this._gridWatchers += 1;
    this._tellWhatToWatch();
  }

  unwatchGrid(): void {
    this._gridWatchers = Math.max(0, this._gridWatchers - 1);
    this._tellWhatToWatch();
  }

  dismiss(notice: number): void {
    this._handle({ type: 'dismiss', notice });
  }

  forget(cluster: string): void {
    this._handle({ type: 'forget', cluster });
  }

  /** Let go of the server for good. */
  dispose(): void {
    this._watchers = 0;
    clearTimeout(this._timer);
    this._line.stop();
    Signal.clearData(this);
  }

  private get _isActive(): boolean {
    return this._watchers > 0 && !this._hidden;
  }

  private _activityMayHaveChanged(before: boolean): void {
    if (before === this._isActive) {
      return;
    }
    if (!this._isActive) {
      clearTimeout(this._timer);
      this._line.send({ type: 'pause' });
    } else if (this._line.isUp) {
      this._line.send({ type: 'resume' });
      this._tellWhatToWatch();
    } else {
      this._line.start();
      this._pollAfter(this._state.loaded ? 0 : PATIENCE_MS);
    }
  }

  private _tellWhatToWatch(): void {
    if (!this._line.isUp || !this._isActive) {
      return;
    }
    const running = this._state.clusters.filter(
      one => one.kind !== 'unreadable' && (one.state === 'running' || one.state === 'unreachable')
    );
    const first = this.cluster;
    const ids = running.map(one => one.id).filter(id => id !== first?.id);
    const clusters = (first && running.includes(first) ? [first.id, ...ids] : ids).slice(0, MOST_WATCHED);
    const interval = Math.min(5, Math.max(0.25, this._seconds));
    const message = { type: 'watch', clusters, interval, grid: this._gridWatchers > 0 };
    const text = JSON.stringify(message);
    if (text !== this._watched) {
      this._watched = text;
      this._line.send(message);
    }
  }

  private _receive(text: string): void {
    const message = parseMessage(text);
    if (message === null) {
      return;
    }
    try {
      this._handle({ type: 'message', message, now: Date.now() / 1000 });
    } catch {
      // what is known and what is told do not fit: begin anew
      this._line.stop();
      this._line.start();
      return;
    }
    if (this._state.problem?.kind === 'versions') {
      this._line.stop();
      clearTimeout(this._timer);
    } else if (message.type === 'clusters') {
      clearTimeout(this._timer);
      this._failures = 0;
      this._tellWhatToWatch();
    }
  }

  private _pollAfter(pause: number): void {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => {
      void this._look();
    }, pause);
  }

  /** Ask for the list; one look at a time. */
  private _look(): Promise<void> {
    this._looking ??= this._ask().finally(() => {
      this._looking = null;
      if (this._isActive && this._state.transport !== 'live' && this._state.problem?.kind !== 'versions') {
        const pause = 1000 * this._seconds * 2 ** this._failures;
        this._pollAfter(Math.max(1000 * this._seconds, Math.min(pause, LONGEST_PAUSE_MS)));
      }
    });
    return this._looking;
  }

  private async _ask(): Promise<void> {
    try {
      const clusters = await this._list();
      this._failures = 0;
      this._handle({ type: 'answer', clusters, now: Date.now() / 1000 });
    } catch (reason) {
      this._failures += 1;
      const problem =
        reason instanceof LookError
          ? reason.problem
          : ({ kind: 'bad-answer', detail: String(reason) } as const);
      this._handle({ type: 'problem', problem });
    }
  }

  private _handle(event: PanelEvent): void {
    const next = reduce(this._state, event);
    if (next !== this._state) {
      this._state = next;
      this._changed.emit(next);
    }
  }

  private readonly _list: IStoreOptions['list'];
  private readonly _line: Line;
  private readonly _changed = new Signal<this, IPanelState>(this);
  private readonly _chosen = new Signal<this, string>(this);
  private _state = initialState;
  private _choice = '';
  private _seconds = 1;
  private _watchers = 0;
  private _gridWatchers = 0;
  private _hidden = false;
  /** What the server was last told to watch. */
  private _watched = '';
  private _failures = 0;
  private _looking: Promise<void> | null = null;
  private _timer: ReturnType<typeof setTimeout> | undefined;
}
