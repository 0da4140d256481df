/** The panel's sections: what the core shows, and what any other plugin adds. */

import { Token } from '@lumino/coreutils';
import { DisposableDelegate, type IDisposable } from '@lumino/disposable';
import { Signal, type ISignal } from '@lumino/signaling';
import type { TranslationBundle } from '@jupyterlab/translation';

import type { ICluster } from './model.ts';
import type { IClusterStore } from './store.ts';
import type { Verb } from './request.ts';

/** What a section is drawn from. It is drawn again whenever the store changes. */
export interface ISectionProps {
  /** The cluster that the panel shows; null if there is none. */
  readonly cluster: ICluster | null;
  readonly store: IClusterStore;
  /** Ask the server extension: `send('GET', ['clusters', id, 'pending'], undefined, { owner })`. */
  readonly send: (
    verb: Verb,
    path: readonly string[],
    body?: object,
    query?: Readonly<Record<string, string | number | undefined>>
  ) => Promise<unknown>;
  /** The address of something that the server extension serves, to be opened in a tab of its own. */
  readonly url: (...path: string[]) => string;
  readonly trans: TranslationBundle;
}

/** A part of the panel that opens and shuts. */
export interface IPanelSection {
  /** Letters, digits and dashes; unique in the panel. */
  readonly id: string;
  /** What its heading says. */
  readonly title: string;
  /** Sections stand in the order of their ranks; those of shoal have 10, 20, … 50. */
  readonly rank: number;
  /** Whether it is open until the user decides; shut by default. */
  readonly open?: boolean;
  /** Whether it has something to show without any cluster. */
  readonly always?: boolean;
  /** Its content. Only called while it is open. The result is an element of React, null for nothing. */
  render(props: ISectionProps): React.ReactElement | null;
  /** A few characters beside the heading, such as a count; "" for nothing. */
  badge?(props: ISectionProps): string;
}

/** Where sections are registered. */
export interface IPanelSections {
  /** The sections in order. */
  readonly all: readonly IPanelSection[];
  readonly changed: ISignal<IPanelSections, void>;
  /** Add a section; disposing what is returned removes it. Raises `Error` if there is one with this id. */
  add(section: IPanelSection): IDisposable;
}

export const IPanelSections = new Token<IPanelSections>(
  'shoal-labextension:IPanelSections',
  'The sections of the shoal panel. Add yours to it.'
);

export class PanelSections implements IPanelSections {
  get all(): readonly IPanelSection[] {
    return this._all;
  }

  get changed(): ISignal<IPanelSections, void> {
    return this._changed;
  }

  add(section: IPanelSection): IDisposable {
    if (!/^[A-Za-z][A-Za-z0-9-]*$/.test(section.id)) {
      throw new Error(`“${section.id}” cannot be the id of a section: use letters, digits and dashes.`);
    }
    if (this._all.some(one => one.id === section.id)) {
      throw new Error(`There is a section “${section.id}” already.`);
    }
    this._replace([...this._all, section]);
    return new DisposableDelegate(() => {
      this._replace(this._all.filter(one => one !== section));
    });
  }

  private _replace(sections: readonly IPanelSection[]): void {
    this._all = [...sections].sort((a, b) => a.rank - b.rank || (a.id < b.id ? -1 : 1));
    this._changed.emit();
  }

  private readonly _changed = new Signal<this, void>(this);
  private _all: readonly IPanelSection[] = [];
}
