/**
 * Keeps the output of remote work up to date in pages that did not run the cell: after a reload, or in a second window.
 *
 * JupyterLab brings an update to its place by the request that it has sent itself. A reloaded page has sent none, and
 * drops it. So the kernel puts the id of such a display into the metadata of the output, which the file keeps, and
 * that of the cell into the message. The id of a display begins with that of the kernel's session.
 */
import type { ICodeCellModel } from '@jupyterlab/cells';
import { NotebookActions, type INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import { CommsOverSubshells, KernelMessage, type Kernel } from '@jupyterlab/services';
import { JSONExt } from '@lumino/coreutils';

/** What kernels answer by showing everything once more: `reloading.py` has the other side. */
const TARGET = 'shoal.displays';

type DisplayMsg = KernelMessage.IDisplayDataMsg | KernelMessage.IUpdateDisplayDataMsg;

/** Follow the displays of every notebook. */
export function followDisplays(tracker: INotebookTracker): void {
  /** Cells that this page has run: JupyterLab looks after their output. */
  const ran = new Set<string>();
  NotebookActions.executionScheduled.connect((_, { cell }) => {
    ran.add(cell.model.id);
  });
  tracker.forEach(panel => {
    follow(panel, ran);
  });
  tracker.widgetAdded.connect((_, panel) => {
    follow(panel, ran);
  });
}

function follow(panel: NotebookPanel, ran: Set<string>): void {
  /** Displays that have had a place here; one that was cleared stays away. */
  const placed = new Set<string>();
  let session = '';
  panel.sessionContext.iopubMessage.connect((context, msg) => {
    const kernel = context.session?.kernel;
    if (!kernel) {
      return;
    }
    if (msg.header.session !== session) {
      const made = (session = msg.header.session);
      void panel.context.ready.then(() => {
        askForMissed(panel, kernel, made);
      });
    }
    const isDisplay = KernelMessage.isDisplayDataMsg(msg) || KernelMessage.isUpdateDisplayDataMsg(msg);
    const isOwn = (msg.parent_header as { session?: string }).session === kernel.clientId;
    if (isDisplay && !isOwn && panel.context.isReady) {
      place(panel, msg, placed, ran);
    }
  });
}

/** Have the kernel show its displays again, if the notebook has some that it made. */
function askForMissed(panel: NotebookPanel, kernel: Kernel.IKernelConnection, session: string): void {
  const isTheirs = (id: string | undefined): boolean => id?.startsWith(`shoal-${session}-`) ?? false;
  if (kernel.isDisposed || !codeCells(panel).some(cell => displayIds(cell).some(isTheirs))) {
    return;
  }
  const comm = kernel.createComm(TARGET);
  const open = (): void => {
    if (!comm.isDisposed) {
      comm.open();
    }
  };
  // Not part of the interface: when messages begin to go past the cell that runs.
  const { subshellStarted } = comm as { subshellStarted?: Promise<void> };
  if (subshellStarted && kernel.supportsSubshells && comm.commsOverSubshells !== CommsOverSubshells.Disabled) {
    subshellStarted.then(open, open);
  } else {
    open();
  }
}

/** Show a display where it was shown before, or for the first time under its cell. */
function place(panel: NotebookPanel, msg: DisplayMsg, placed: Set<string>, ran: Set<string>): void {
  const { data, metadata, transient } = msg.content;
  const id = transient?.display_id;
  if (!id?.startsWith('shoal-')) {
    return;
  }
  const output = { output_type: 'display_data', data, metadata };
  const cells = codeCells(panel);
  for (const { outputs } of cells.filter(cell => displayIds(cell).includes(id))) {
    placed.add(id);
    for (let index = 0; index < outputs.length; index++) {
      const shown = outputs.get(index);
      if (displayId(shown.metadata) === id && !JSONExt.deepEqual(shown.toJSON(), output)) {
        outputs.set(index, output);
      }
    }
  }
  if (!placed.has(id)) {
    const cellId = (transient as Record<string, unknown>).shoal_cell_id;
    const cell = cells.find(cell => cell.id === cellId && !ran.has(cell.id));
    placed.add(id);
    cell?.outputs.add(output);
  }
}

function codeCells(panel: NotebookPanel): ICodeCellModel[] {
  const cells = [...(panel.content.model?.cells ?? [])];
  return cells.filter((cell): cell is ICodeCellModel => cell.type === 'code');
}

function displayIds({ outputs }: ICodeCellModel): (string | undefined)[] {
  return Array.from({ length: outputs.length }, (_, index) => displayId(outputs.get(index).metadata));
}

function displayId(metadata: { shoal?: unknown }): string | undefined {
  return (metadata.shoal as { display_id?: string } | undefined)?.display_id;
}
