import type { JupyterFrontEnd } from '@jupyterlab/application';
import { NotebookActions, type INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import type { TranslationBundle } from '@jupyterlab/translation';
import { addIcon, linkIcon, refreshIcon } from '@jupyterlab/ui-components';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { shoalIcon } from './icons';
import { START_CODE, connectCode, displayName, joinCode } from './model';
import { ClusterPanel } from './panel';
import type { IClusterStore } from './store';

export namespace CommandIDs {
  export const show = 'shoal:show-panel';
  export const refresh = 'shoal:refresh';
  export const insertStart = 'shoal:insert-start-cell';
  export const insertConnect = 'shoal:insert-connect-cell';
  export const use = 'shoal:use-in-notebook';
}

const NO_ARGUMENTS = { args: { type: 'object', properties: {} } };

/** Add the commands that need no notebook. */
export function addPanelCommands(
  app: JupyterFrontEnd,
  store: IClusterStore,
  trans: TranslationBundle
): void {
  app.commands.addCommand(CommandIDs.show, {
    label: trans.__('Show Shoal Clusters'),
    caption: trans.__('Show the panel that lists your shoal clusters'),
    icon: shoalIcon,
    describedBy: NO_ARGUMENTS,
    execute: () => {
      app.shell.activateById(ClusterPanel.id);
    }
  });
  app.commands.addCommand(CommandIDs.refresh, {
    label: trans.__('Refresh Shoal Clusters'),
    caption: trans.__('Ask the server for your shoal clusters now'),
    icon: refreshIcon,
    describedBy: NO_ARGUMENTS,
    execute: () => store.refresh()
  });
}

/** Add the commands that put a cell into a notebook. */
export function addNotebookCommands(
  app: JupyterFrontEnd,
  tracker: INotebookTracker,
  store: IClusterStore,
  trans: TranslationBundle
): void {
  app.commands.addCommand(CommandIDs.insertStart, {
    label: trans.__('Insert Cell That Starts a Shoal Cluster'),
    caption: trans.__('Insert “%load_ext shoal” and “shoal.init()” into the notebook, or into a new one'),
    icon: addIcon,
    describedBy: NO_ARGUMENTS,
    execute: async () => {
      const panel = tracker.currentWidget ?? (await openNotebook(app));
      if (panel) {
        await insertCell(app, panel, START_CODE);
      }
    }
  });
  app.commands.addCommand(CommandIDs.insertConnect, {
    label: args => {
      const cluster = findCluster(store, args);
      return cluster
        ? trans.__('Insert Cell That Connects to “%1”', displayName(cluster))
        : trans.__('Insert Cell That Connects to a Shoal Cluster');
    },
    caption: trans.__('Insert a cell that attaches this notebook to a cluster that runs'),
    describedBy: {
      args: {
        type: 'object',
        properties: {
          cluster: { type: 'string', description: trans.__('The id of the cluster; the newest by default') }
        }
      }
    },
    isEnabled: args => tracker.currentWidget !== null && findCluster(store, args) !== undefined,
    execute: async args => {
      const panel = tracker.currentWidget;
      const cluster = findCluster(store, args);
      if (panel && cluster) {
        await insertCell(app, panel, connectCode(cluster, store.state.clusters));
      }
    }
  });
  app.commands.addCommand(CommandIDs.use, {
    label: args => {
      const cluster = findCluster(store, args);
      return cluster
        ? trans.__('Use “%1” in This Notebook', displayName(cluster))
        : trans.__('Use a Shoal Cluster in This Notebook');
    },
    caption: trans.__('Have the kernel of the notebook use a cluster that runs; its variables stay as they are'),
    icon: linkIcon,
    describedBy: {
      args: {
        type: 'object',
        properties: {
          cluster: { type: 'string', description: trans.__('The id of the cluster; the one shown by default') }
        }
      }
    },
    isEnabled: args => kernelOf(tracker) !== null && findCluster(store, args) !== undefined,
    execute: async args => {
      const kernel = kernelOf(tracker);
      const cluster = findCluster(store, args);
      if (kernel && cluster) {
        await runQuietly(kernel, joinCode(cluster, store.state.clusters), trans);
      }
    }
  });
  const notify = (): void => {
    app.commands.notifyCommandChanged(CommandIDs.insertConnect);
    app.commands.notifyCommandChanged(CommandIDs.use);
  };
  tracker.currentChanged.connect(notify);
  store.changed.connect(notify);
}

function findCluster(store: IClusterStore, args: ReadonlyPartialJSONObject) {
  const found =
    args.cluster === undefined
      ? store.cluster
      : store.state.clusters.find(one => one.id === args.cluster);
  return found?.state === 'running' || found?.state === 'unreachable' ? found : undefined;
}

function kernelOf(tracker: INotebookTracker): Kernel.IKernelConnection | null {
  return tracker.currentWidget?.sessionContext.session?.kernel ?? null;
}

/** Run code in a kernel without a cell: nothing of it is kept in the history. Rejects with the kernel's error. */
async function runQuietly(
  kernel: Kernel.IKernelConnection,
  code: string,
  trans: TranslationBundle
): Promise<void> {
  const future = kernel.requestExecute({ code, store_history: false, stop_on_error: true, allow_stdin: false });
  const said: string[] = [];
  future.onIOPub = message => {
    if (message.header.msg_type === 'stream') {
      said.push((message as KernelMessage.IStreamMsg).content.text);
    }
  };
  const { content } = await future.done;
  if (content.status === 'error') {
    throw new Error(`${content.ename}: ${content.evalue}`);
  }
  if (content.status !== 'ok') {
    throw new Error(said.join('').trim() || trans.__('The kernel was interrupted.'));
  }
}

/** Open a new notebook with the server's default kernel. */
async function openNotebook(app: JupyterFrontEnd): Promise<NotebookPanel | undefined> {
  const kernelName = app.serviceManager.kernelspecs.specs?.default;
  const panel: unknown = await app.commands.execute('notebook:create-new', { kernelName, activate: true });
  return panel as NotebookPanel | undefined;
}

/** Put a cell with this code after the active one, or into the active one if it is still empty. */
async function insertCell(app: JupyterFrontEnd, panel: NotebookPanel, code: string): Promise<void> {
  // Until the file has been read the model is a stand-in: a cell put into it would be lost.
  await panel.context.ready;
  await panel.revealed;
  const notebook = panel.content;
  const active = notebook.activeCell?.model;
  if (active?.type !== 'code' || active.sharedModel.getSource().trim() !== '') {
    NotebookActions.insertBelow(notebook);
  }
  notebook.activeCell?.model.sharedModel.setSource(code);
  app.shell.activateById(panel.id);
  notebook.activate();
}
