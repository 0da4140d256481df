import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { Cell, CodeCell } from '@jupyterlab/cells';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { Kernel } from '@jupyterlab/services';

import type { GoToCell } from './sections/work';
import { countOf, runOf } from './work';

/**
 * Find notebook cells by the tag of the work they caused.
 *
 * The tag holds the id of the message that ran the cell, which its output area knows as long as the page lives. After a
 * reload the number in front of the cell is what is left: it is looked for in the notebook that made the cluster, then
 * in the one that is open in front.
 */
export function makeGoToCell(app: JupyterFrontEnd, tracker: INotebookTracker): GoToCell {
  return (tag, notebook) => {
    const found = find(tracker, tag, notebook);
    if (found === null) {
      return null;
    }
    const [panel, index] = found;
    return () => {
      app.shell.activateById(panel.id);
      panel.content.activeCellIndex = index;
      panel.content.deselectAll();
      const cell = panel.content.widgets[index];
      if (cell) {
        void panel.content.scrollToCell(cell, 'center');
      }
    };
  };
}

/** The id of the message that ran a cell last, as far as this page knows. */
export function lastRunOf(cell: Cell): string | undefined {
  if (cell.model.type !== 'code') {
    return undefined;
  }
  // the declaration leaves out that there is none before the first run
  const future = (cell as CodeCell).outputArea.future as Kernel.IShellFuture | null;
  return future?.msg.header.msg_id;
}

function find(tracker: INotebookTracker, tag: string, notebook: string): [NotebookPanel, number] | null {
  const run = runOf(tag);
  const panels: NotebookPanel[] = [];
  tracker.forEach(panel => {
    panels.push(panel);
  });
  for (const panel of panels) {
    const index = panel.content.widgets.findIndex(
      cell => lastRunOf(cell) === run
    );
    if (index >= 0) {
      return [panel, index];
    }
  }
  const count = countOf(tag);
  const likely = [...panels.filter(panel => isAt(panel, notebook)), tracker.currentWidget];
  for (const panel of count === null ? [] : likely) {
    const index = panel?.content.widgets.findIndex(
      cell => cell.model.type === 'code' && (cell as CodeCell).model.executionCount === count
    );
    if (panel && index !== undefined && index >= 0) {
      return [panel, index];
    }
  }
  return null;
}

/** Whether a notebook of this page is the one at a path of the server's file system. */
function isAt(panel: NotebookPanel, notebook: string): boolean {
  const path = panel.context.path.replace(/^[^/]*:/, '');
  return path !== '' && (notebook === path || notebook.endsWith(`/${path}`));
}
