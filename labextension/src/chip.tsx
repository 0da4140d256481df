import { InputDialog } from '@jupyterlab/apputils';
import type { Cell } from '@jupyterlab/cells';
import type { INotebookTracker } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import React from 'react';

import { lastRunOf } from './jump';
import { KEY, hasMagic, isSupported, optionsInSource, optionsOf, withOptions } from './placement';
import { formatSeconds } from './format';
import type { IClusterStore } from './store';
import { runOf } from './work';

/** A place of the menu: what it says, and the options of `%%remote` behind it; null for the notebook itself. */
interface IPlace {
  label: string;
  options: string | null;
}

function placesOf(trans: TranslationBundle): IPlace[] {
  return [
    { label: trans.__('in the notebook'), options: null },
    { label: trans.__('any node'), options: '' },
    { label: trans.__('all nodes'), options: '--on all' },
    { label: trans.__('2 ranks'), options: '--ranks 2' },
    { label: trans.__('4 ranks'), options: '--ranks 4' },
    { label: trans.__('with 2 CPUs'), options: '--num-cpus 2' },
    { label: trans.__('with a GPU'), options: '--num-gpus 1' },
    { label: trans.__('in the background'), options: '--bg' }
  ];
}

const OTHER = 'other';

/**
 * Where a cell runs, and how its last run went; in the cell's toolbar.
 *
 * What is chosen goes into the cell's metadata. A cell that says so itself, with `%%remote`, is shown and not changed. Hidden
 * where the kernel takes no metadata.
 */
export class PlacementChip extends ReactWidget {
  constructor(
    private readonly _cell: Cell,
    private readonly _tracker: INotebookTracker,
    private readonly _store: IClusterStore,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.addClass('shoal-Chip');
    this.hide();
    const draw = (): void => {
      this.update();
    };
    _cell.model.metadataChanged.connect(draw, this);
    _cell.model.contentChanged.connect(draw, this);
    _store.changed.connect(draw, this);
    void this._showWhereSupported();
  }

  protected override render(): React.JSX.Element | null {
    const { _cell: cell, _trans: trans } = this;
    const source = cell.model.sharedModel.getSource();
    const written = optionsInSource(source);
    if (cell.model.type !== 'code' || (hasMagic(source) && written === null)) {
      return null;
    }
    const options = written ?? optionsOf(cell.model.metadata);
    const places = placesOf(trans);
    const known = places.findIndex(place => place.options === options);
    return (
      <>
        <span className="shoal-Chip-run">{this._lastRun()}</span>
        <select
          aria-label={trans.__('Where this cell runs')}
          title={
            written === null
              ? trans.__('Where this cell runs. Needs “%load_ext shoal” in the notebook.')
              : trans.__('The cell itself says so.')
          }
          disabled={written !== null}
          value={known >= 0 ? known : OTHER}
          onChange={event => {
            const value = event.target.value;
            if (value === OTHER) {
              this._ask(options ?? '');
            } else {
              this._place(places[Number(value)]?.options ?? null);
            }
          }}
        >
          {places.map((place, index) => (
            <option key={index} value={index}>
              {place.label}
            </option>
          ))}
          <option value={OTHER}>
            {known >= 0 ? trans.__('other options…') : `%%remote ${options ?? ''}`}
          </option>
        </select>
      </>
    );
  }

  private _place(options: string | null): void {
    const { model } = this._cell;
    const value = withOptions(model.getMetadata(KEY), options);
    if (value === undefined) {
      model.deleteMetadata(KEY);
    } else {
      model.setMetadata(KEY, value);
    }
  }

  private _ask(options: string): void {
    const question = this._trans.__('Options, as after %1:', '%%remote');
    void InputDialog.getText({ title: question, text: options, placeholder: '--on label:zone=a' }).then(given => {
      if (given.button.accept && given.value !== null) {
        this._place(given.value);
      }
      this.update();
    });
  }

  /** `2 done, 1.5 s`: what became of the work of the cell's last run. */
  private _lastRun(): string {
    const run = lastRunOf(this._cell);
    if (run === undefined) {
      return '';
    }
    for (const { snapshot } of this._store.state.clusters) {
      const found = snapshot?.cells.find(cell => runOf(cell.id) === run);
      if (found) {
        const { running, queued, failed, finished, seconds } = found;
        return running + queued > 0
          ? this._trans.__('%1 running', (running + queued).toLocaleString())
          : failed > 0
            ? this._trans.__('✕ %1 failed', failed.toLocaleString())
            : this._trans.__('✓ %1 in %2', finished.toLocaleString(), formatSeconds(seconds));
      }
    }
    return '';
  }

  private async _showWhereSupported(): Promise<void> {
    const panel = this._tracker.find(one => one.content.widgets.includes(this._cell)) ?? this._tracker.currentWidget;
    await panel?.sessionContext.ready;
    const info = await panel?.sessionContext.session?.kernel?.info;
    if (info && !this.isDisposed && isSupported(info)) {
      this.show();
      this.update();
    }
  }
}
