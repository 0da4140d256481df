import type { ServerConnection } from '@jupyterlab/services';
import { Token } from '@lumino/coreutils';
import { Poll } from '@lumino/polling';
import { Signal, type ISignal } from '@lumino/signaling';

import { initialState, reduce, type IPanelState, type PanelEvent } from './model';
import { LookError, fetchClusters } from './request';

/** The clusters of this user, for the panel and for any other plugin that wants to show them. */
export interface IClusterStore {
  readonly state: IPanelState;
  readonly changed: ISignal<IClusterStore, IPanelState>;
  /** Look now; resolves when the answer is in. */
  refresh(): Promise<void>;
  /** Begin to look; the first watcher of some also gets an answer at once. */
  watch(): void;
  /** One watcher less; without any, the server is left alone. */
  unwatch(): void;
}

export const IClusterStore = new Token<IClusterStore>(
  'shoal-labextension:IClusterStore',
  'The shoal clusters of this user, kept up to date while somebody watches.'
);

/** No matter how long the server is silent, the panel finds it again within this time. */
const LONGEST_PAUSE_MS = 30_000;

/**
 * Polls the server extension while somebody watches, and says what has changed.
 *
 * A failed look is followed by longer and longer pauses; a hidden page or panel by none at all.
 */
export class ClusterStore implements IClusterStore {
  constructor(settings: ServerConnection.ISettings) {
    this._poll = new Poll<void>({
      name: 'shoal-labextension:clusters',
      auto: false,
      factory: () => this._look(settings),
      frequency: { interval: 2000, backoff: true, max: LONGEST_PAUSE_MS },
      standby: () => (this._watchers > 0 ? 'when-hidden' : true)
    });
  }

  get state(): IPanelState {
    return this._state;
  }

  get changed(): ISignal<IClusterStore, IPanelState> {
    return this._changed;
  }

  set refreshSeconds(seconds: number) {
    const interval = 1000 * seconds;
    this._poll.frequency = { interval, backoff: true, max: Math.max(interval, LONGEST_PAUSE_MS) };
  }

  async refresh(): Promise<void> {
    await this._poll.refresh();
    await this._poll.tick.catch(() => undefined);
  }

  watch(): void {
    this._watchers += 1;
    if (this._watchers === 1) {
      void this._poll.refresh();
    }
  }

  unwatch(): void {
    this._watchers = Math.max(0, this._watchers - 1);
  }

  private async _look(settings: ServerConnection.ISettings): Promise<void> {
    try {
      this._handle({ type: 'answer', clusters: await fetchClusters(settings) });
    } catch (reason) {
      const problem =
        reason instanceof LookError
          ? reason.problem
          : ({ kind: 'bad-answer', detail: String(reason) } as const);
      this._handle({ type: 'problem', problem });
      // the poll needs to know of the failure, to back off
      throw reason;
    }
  }

  private _handle(event: PanelEvent): void {
    this._state = reduce(this._state, event);
    this._changed.emit(this._state);
  }

  private readonly _poll: Poll<void>;
  private readonly _changed = new Signal<this, IPanelState>(this);
  private _state = initialState;
  private _watchers = 0;
}
