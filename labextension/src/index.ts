import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator, type TranslationBundle } from '@jupyterlab/translation';

import { CommandIDs, addNotebookCommands, addPanelCommands } from './commands';
import { followDisplays } from './displays';
import { ClusterPanel } from './panel';
import { ClusterStore, IClusterStore } from './store';

const DOMAIN = 'shoal_labextension';

/** In the part of the sidebar that JupyterLab leaves to extensions (501 to 899). */
const SIDEBAR_RANK = 700;

function load(translator: ITranslator | null): TranslationBundle {
  return (translator ?? nullTranslator).load(DOMAIN);
}

/** Keeps the list of clusters, for the panel and for other extensions. */
const clusters: JupyterFrontEndPlugin<IClusterStore> = {
  id: 'shoal-labextension:clusters',
  description: 'Keeps the list of shoal clusters up to date.',
  autoStart: true,
  provides: IClusterStore,
  optional: [ISettingRegistry],
  activate: (app: JupyterFrontEnd, settingRegistry: ISettingRegistry | null): IClusterStore => {
    const store = new ClusterStore(app.serviceManager.serverSettings);
    settingRegistry
      ?.load('shoal-labextension:clusters')
      .then(settings => {
        const apply = (): void => {
          store.refreshSeconds = settings.get('refreshSeconds').composite as number;
        };
        settings.changed.connect(apply);
        apply();
      })
      .catch((reason: unknown) => {
        console.error('shoal: the settings of the panel were not loaded', reason);
      });
    return store;
  }
};

/** The sidebar panel and its commands. */
const panel: JupyterFrontEndPlugin<void> = {
  id: 'shoal-labextension:panel',
  description: 'Shows shoal clusters in the sidebar.',
  autoStart: true,
  requires: [IClusterStore],
  optional: [INotebookTracker, ITranslator, ICommandPalette, ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    store: IClusterStore,
    tracker: INotebookTracker | null,
    translator: ITranslator | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null
  ): void => {
    const trans = load(translator);
    const { commands } = app;
    addPanelCommands(app, store, trans);
    if (tracker) {
      addNotebookCommands(app, tracker, store, trans);
    }
    const run = (command: string, args?: { cluster: string }): void => {
      commands.execute(command, args).catch((reason: unknown) => {
        console.error(`shoal: ${command} failed`, reason);
      });
    };
    const widget = new ClusterPanel(
      store,
      {
        refresh: () => {
          run(CommandIDs.refresh);
        },
        insertStart: () => {
          run(CommandIDs.insertStart);
        },
        insertConnect: cluster => {
          run(CommandIDs.insertConnect, { cluster: cluster.id });
        },
        hasNotebook: () => (tracker?.currentWidget ?? null) !== null
      },
      trans
    );
    // a button is enabled or not by what notebook there is
    tracker?.currentChanged.connect(() => {
      widget.update();
    });
    app.shell.add(widget, 'left', { rank: SIDEBAR_RANK, type: 'Shoal' });
    restorer?.add(widget, ClusterPanel.id);
    for (const command of Object.values(CommandIDs)) {
      if (commands.hasCommand(command)) {
        palette?.addItem({ command, category: trans.__('Shoal') });
      }
    }
  }
};

/** Output that goes on after a reload. */
const displays: JupyterFrontEndPlugin<void> = {
  id: 'shoal-labextension:displays',
  description: 'Keeps the output of remote work up to date after a reload.',
  autoStart: true,
  requires: [INotebookTracker],
  activate: (_: JupyterFrontEnd, tracker: INotebookTracker): void => {
    followDisplays(tracker);
  }
};

export { IClusterStore } from './store';
export default [clusters, panel, displays];
