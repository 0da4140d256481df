import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, IToolbarWidgetRegistry } from '@jupyterlab/apputils';
import type { Cell } from '@jupyterlab/cells';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStateDB } from '@jupyterlab/statedb';
import { ITranslator, nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import { PlacementChip } from './chip';
import { CommandIDs, addNotebookCommands, addPanelCommands } from './commands';
import { followDisplays } from './displays';
import { makeGoToCell } from './jump';
import { OpenSections } from './openSections';
import { ClusterPanel } from './panel';
import { Api } from './request';
import { IPanelSections, PanelSections } from './sections';
import { makeClustersSection, type IClusterActions } from './sections/clusters';
import { makeEventsSection } from './sections/events';
import { makeLiveSection } from './sections/live';
import { makeLogsSection } from './sections/logs';
import { makeWorkSection } from './sections/work';
import { ClusterStore, IClusterStore } from './store';

const DOMAIN = 'shoal_labextension';

/** In the part of the sidebar that JupyterLab leaves to extensions (501 to 899). */
const SIDEBAR_RANK = 700;

function load(translator: ITranslator | null): TranslationBundle {
  return (translator ?? nullTranslator).load(DOMAIN);
}

/** Do something with the settings of a plugin of ours, now and whenever they change. */
function followSettings(
  registry: ISettingRegistry | null,
  plugin: string,
  apply: (settings: ISettingRegistry.ISettings) => void
): void {
  registry
    ?.load(plugin)
    .then(settings => {
      settings.changed.connect(apply);
      apply(settings);
    })
    .catch((reason: unknown) => {
      console.error(`shoal: the settings of ${plugin} were not loaded`, reason);
    });
}

/** Keeps what is known of the clusters, for the panel and for other extensions. */
const clusters: JupyterFrontEndPlugin<IClusterStore> = {
  id: 'shoal-labextension:clusters',
  description: 'Keeps what is known of the shoal clusters up to date.',
  autoStart: true,
  provides: IClusterStore,
  optional: [ISettingRegistry],
  activate: (app: JupyterFrontEnd, settingRegistry: ISettingRegistry | null): IClusterStore => {
    const api = new Api(app.serviceManager.serverSettings);
    const store = new ClusterStore({ open: () => api.openLine(), list: () => api.list() });
    store.hidden = document.hidden;
    document.addEventListener('visibilitychange', () => {
      store.hidden = document.hidden;
    });
    followSettings(settingRegistry, clusters.id, settings => {
      store.refreshSeconds = settings.get('refreshSeconds').composite as number;
    });
    return store;
  }
};

/** Where the sections of the panel are registered, ours and those of other extensions. */
const sections: JupyterFrontEndPlugin<IPanelSections> = {
  id: 'shoal-labextension:sections',
  description: 'Holds the sections of the shoal panel.',
  autoStart: true,
  provides: IPanelSections,
  activate: () => new PanelSections()
};

/** The sidebar panel and its commands. */
const panel: JupyterFrontEndPlugin<void> = {
  id: 'shoal-labextension:panel',
  description: 'Shows shoal clusters in the sidebar.',
  autoStart: true,
  requires: [IClusterStore, IPanelSections],
  optional: [
    INotebookTracker,
    ITranslator,
    ICommandPalette,
    ILayoutRestorer,
    ILauncher,
    IStateDB,
    ISettingRegistry
  ],
  activate: (
    app: JupyterFrontEnd,
    store: IClusterStore,
    panelSections: IPanelSections,
    tracker: INotebookTracker | null,
    translator: ITranslator | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    launcher: ILauncher | null,
    state: IStateDB | null,
    settingRegistry: ISettingRegistry | null
  ): void => {
    const trans = load(translator);
    const { commands } = app;
    addPanelCommands(app, store, trans);
    if (tracker) {
      addNotebookCommands(app, tracker, store, trans);
    }
    const run = (command: string, args?: { cluster: string }): void => {
      if (!commands.hasCommand(command)) {
        return;
      }
      commands.execute(command, args).catch((reason: unknown) => {
        console.error(`shoal: ${command} failed`, reason);
      });
    };
    const open = new OpenSections();
    followSettings(settingRegistry, clusters.id, settings => {
      open.hidden = settings.get('hiddenSections').composite as string[];
    });
    if (state) {
      void open.keep(state, store);
    }
    const actions: IClusterActions = {
      insertStart: () => {
        run(CommandIDs.insertStart);
      },
      insertConnect: cluster => {
        run(CommandIDs.insertConnect, { cluster: cluster.id });
      },
      useInNotebook: tracker ? cluster => commands.execute(CommandIDs.use, { cluster: cluster.id }) : null,
      hasNotebook: () => (tracker?.currentWidget ?? null) !== null,
      hasKernel: () => (tracker?.currentWidget?.sessionContext.session?.kernel ?? null) !== null
    };
    panelSections.add(makeClustersSection(trans, actions));
    const api = new Api(app.serviceManager.serverSettings);
    const widget = new ClusterPanel({
      store,
      sections: panelSections,
      open,
      send: (...args) => api.send(...args),
      url: (...path) => api.url(...path),
      trans,
      insertStart: () => {
        actions.insertStart();
      },
      refresh: () => {
        run(CommandIDs.refresh);
      }
    });
    // a button is enabled or not by what notebook there is
    tracker?.currentChanged.connect((_, notebook) => {
      widget.update();
      notebook?.sessionContext.kernelChanged.connect(() => {
        widget.update();
      });
    });
    app.shell.add(widget, 'left', { rank: SIDEBAR_RANK, type: 'Shoal' });
    restorer?.add(widget, ClusterPanel.id);
    for (const command of Object.values(CommandIDs)) {
      if (commands.hasCommand(command)) {
        palette?.addItem({ command, category: trans.__('Shoal') });
      }
    }
    launcher?.add({ command: CommandIDs.show, category: trans.__('Other'), rank: SIDEBAR_RANK });
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

/** A plugin that adds one section, so that a user can turn it off as any other plugin. */
function addsSection(
  name: string,
  description: string,
  add: (app: JupyterFrontEnd, trans: TranslationBundle, tracker: INotebookTracker | null) => Parameters<IPanelSections['add']>[0]
): JupyterFrontEndPlugin<void> {
  return {
    id: `shoal-labextension:section-${name}`,
    description,
    autoStart: true,
    requires: [IPanelSections],
    optional: [ITranslator, INotebookTracker],
    activate: (
      app: JupyterFrontEnd,
      panelSections: IPanelSections,
      translator: ITranslator | null,
      tracker: INotebookTracker | null
    ): void => {
      panelSections.add(add(app, load(translator), tracker));
    }
  };
}

const live = addsSection('live', 'Shows nodes, curves and what each executor does.', (_, trans) =>
  makeLiveSection(trans)
);
const work = addsSection('work', 'Shows work by cell, errors, actors and objects.', (app, trans, tracker) =>
  makeWorkSection(trans, tracker ? makeGoToCell(app, tracker) : () => null)
);
const logs = addsSection('logs', 'Shows the logs of executors and actors.', (_, trans) => makeLogsSection(trans));
const events = addsSection('events', 'Shows what has happened in a cluster.', (_, trans) => makeEventsSection(trans));

/** Where a cell runs, in its toolbar. Off until it is turned on in the settings. */
const cellChip: JupyterFrontEndPlugin<void> = {
  id: 'shoal-labextension:cell-chip',
  description: 'Shows where a cell runs, and lets the user choose it.',
  autoStart: true,
  requires: [IClusterStore, INotebookTracker, IToolbarWidgetRegistry, ISettingRegistry],
  optional: [ITranslator],
  activate: (
    _: JupyterFrontEnd,
    store: IClusterStore,
    tracker: INotebookTracker,
    toolbars: IToolbarWidgetRegistry,
    settingRegistry: ISettingRegistry,
    translator: ITranslator | null
  ): void => {
    const trans = load(translator);
    let enabled = false;
    followSettings(settingRegistry, cellChip.id, settings => {
      enabled = settings.get('enabled').composite as boolean;
    });
    toolbars.addFactory<Cell>('Cell', 'shoal-placement', cell => {
      if (enabled) {
        return new PlacementChip(cell, tracker, store, trans);
      }
      const nothing = new Widget();
      nothing.hide();
      return nothing;
    });
  }
};

export { IPanelSections, type IPanelSection, type ISectionProps } from './sections';
export { IClusterStore } from './store';
export type { ICluster } from './model';
export default [clusters, sections, panel, live, work, logs, events, cellChip, displays];
