import type { IStateDB } from '@jupyterlab/statedb';
import { Signal, type ISignal } from '@lumino/signaling';

import { isRecord } from './model';
import type { IPanelSection } from './sections';
import type { IClusterStore } from './store';

const KEY = 'shoal-labextension:panel';

/** Which sections are open and which are shown at all; what is open, and the cluster chosen, survive a reload. */
export class OpenSections {
  get changed(): ISignal<OpenSections, void> {
    return this._changed;
  }

  isOpen(section: IPanelSection): boolean {
    return this._open[section.id] ?? section.open ?? false;
  }

  set(id: string, open: boolean): void {
    this._open[id] = open;
    this._changed.emit();
  }

  isShown(id: string): boolean {
    return !this._hidden.includes(id);
  }

  /** The sections that are not shown. */
  set hidden(ids: readonly string[]) {
    this._hidden = ids;
    this._changed.emit();
  }

  /** Take up how things were left, and note how they are left from now on. */
  async keep(state: IStateDB, store: IClusterStore): Promise<void> {
    const save = (): void => {
      // until the first list has come there is no cluster to be noted, and the one before is still wanted
      const cluster = store.cluster?.id ?? known;
      void state.save(KEY, { open: { ...this._open }, cluster });
    };
    const found: unknown = await state.fetch(KEY).catch(() => undefined);
    const open = isRecord(found) && isRecord(found.open) ? found.open : {};
    const known = isRecord(found) && typeof found.cluster === 'string' ? found.cluster : '';
    for (const [id, value] of Object.entries(open)) {
      if (typeof value === 'boolean') {
        this._open[id] ??= value;
      }
    }
    if (known) {
      store.choose(known);
    }
    this._changed.connect(save);
    store.chosen.connect(save);
    this._changed.emit();
  }

  private readonly _changed = new Signal<this, void>(this);
  private readonly _open: Record<string, boolean> = {};
  private _hidden: readonly string[] = [];
}
