import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget, UseSignal, addIcon, refreshIcon } from '@jupyterlab/ui-components';
import React from 'react';

import { ClusterCard } from './card';
import { shoalIcon } from './icons';
import type { ICluster, IPanelState, IProblem } from './model';
import type { IClusterStore } from './store';

/** What the panel's buttons do; commands stand behind all of them. */
export interface IPanelActions {
  refresh(): void;
  /** Put the starting cell into the notebook, or into a new one. */
  insertStart(): void;
  insertConnect(cluster: ICluster): void;
  /** Whether there is a notebook that a cell can be put into. */
  hasNotebook(): boolean;
}

/** The sidebar panel: every cluster of this user, wherever it was started. */
export class ClusterPanel extends ReactWidget {
  static readonly id = 'shoal-panel';

  constructor(
    private readonly _store: IClusterStore,
    private readonly _actions: IPanelActions,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.id = ClusterPanel.id;
    this.addClass('shoal-Panel');
    this.title.icon = shoalIcon;
    this.title.caption = _trans.__('Shoal Clusters');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', this.title.caption);
  }

  protected override onAfterShow(): void {
    this._watch();
  }

  protected override onAfterHide(): void {
    this._unwatch();
  }

  protected override onBeforeDetach(): void {
    this._unwatch();
  }

  protected override render(): React.JSX.Element {
    return (
      <UseSignal signal={this._store.changed} initialArgs={this._store.state}>
        {() => <PanelBody state={this._store.state} actions={this._actions} trans={this._trans} />}
      </UseSignal>
    );
  }

  private _watch(): void {
    if (!this._watching) {
      this._watching = true;
      this._store.watch();
      // what a button may do can have changed while nobody looked
      this.update();
    }
  }

  private _unwatch(): void {
    if (this._watching) {
      this._watching = false;
      this._store.unwatch();
    }
  }

  private _watching = false;
}

interface IBodyProps {
  state: IPanelState;
  actions: IPanelActions;
  trans: TranslationBundle;
}

function PanelBody({ state, actions, trans }: IBodyProps): React.JSX.Element {
  const { clusters, problem, loaded } = state;
  return (
    <>
      <div className="shoal-Panel-header">
        <h2>{trans.__('Shoal clusters')}</h2>
        <HeaderButton
          icon={addIcon}
          label={trans.__('Insert a cell that starts a cluster')}
          onClick={() => {
            actions.insertStart();
          }}
        />
        <HeaderButton
          icon={refreshIcon}
          label={trans.__('Refresh the list of clusters')}
          onClick={() => {
            actions.refresh();
          }}
        />
      </div>
      {/* only what matters is read out, and only when it changes: not each figure at each look */}
      <div role="status" className="shoal-VisuallyHidden">
        {loaded && !problem ? trans._n('%1 cluster', '%1 clusters', clusters.length) : ''}
      </div>
      <div className="shoal-Panel-content">
        {problem && <Problem problem={problem} stale={clusters.length > 0} actions={actions} trans={trans} />}
        {loaded && !problem && clusters.length === 0 && <Empty actions={actions} trans={trans} />}
        {clusters.length > 0 && (
          <ul className="shoal-Cards" aria-label={trans.__('Clusters')} data-stale={problem !== null}>
            {clusters.map(cluster => (
              <ClusterCard
                key={cluster.id}
                cluster={cluster}
                trans={trans}
                insertConnect={
                  actions.hasNotebook()
                    ? () => {
                        actions.insertConnect(cluster);
                      }
                    : null
                }
              />
            ))}
          </ul>
        )}
      </div>
    </>
  );
}

function HeaderButton(props: {
  icon: typeof addIcon;
  label: string;
  onClick: () => void;
}): React.JSX.Element {
  return (
    <button
      type="button"
      className="jp-Button jp-mod-minimal shoal-IconButton"
      title={props.label}
      aria-label={props.label}
      onClick={props.onClick}
    >
      <props.icon.react tag="span" elementSize="normal" />
    </button>
  );
}

/** Nothing runs: say what would show here, and offer the step that makes it so. */
function Empty({ actions, trans }: Omit<IBodyProps, 'state'>): React.JSX.Element {
  return (
    <div className="shoal-Empty">
      <shoalIcon.react tag="div" className="shoal-Empty-icon" width="48px" height="48px" />
      <p className="shoal-Empty-title">{trans.__('No cluster is running')}</p>
      <p>
        {trans.__(
          'Start one from a notebook. It appears here within seconds, with its nodes, tasks and actors.'
        )}
      </p>
      <pre aria-label={trans.__('Code that starts a cluster')}>{'%load_ext shoal\nimport shoal\nshoal.init()'}</pre>
      <button
        type="button"
        className="jp-Button jp-mod-styled jp-mod-accept"
        onClick={() => {
          actions.insertStart();
        }}
      >
        {actions.hasNotebook() ? trans.__('Insert into notebook') : trans.__('Insert into new notebook')}
      </button>
    </div>
  );
}

function Problem(
  props: Omit<IBodyProps, 'state'> & { problem: IProblem; stale: boolean }
): React.JSX.Element {
  const { problem, stale, actions, trans } = props;
  const [title, advice] = explain(problem, trans);
  return (
    <div className="shoal-Problem" role="alert" title={problem.detail}>
      <p className="shoal-Problem-title">{title}</p>
      <p>{advice}</p>
      {stale && <p>{trans.__('What is shown below was true when the server last answered.')}</p>}
      <button
        type="button"
        className="jp-Button jp-mod-styled"
        onClick={() => {
          actions.refresh();
        }}
      >
        {trans.__('Try again')}
      </button>
    </div>
  );
}

/** What went wrong and what to do about it. */
function explain(problem: IProblem, trans: TranslationBundle): [string, string] {
  switch (problem.kind) {
    case 'not-enabled':
      return [
        trans.__('The server part of shoal is not enabled'),
        trans.__(
          'Run “jupyter server extension enable shoal_labextension” in the environment of JupyterLab, then restart it.'
        )
      ];
    case 'not-allowed':
      return [
        trans.__('You may not see the clusters of this server'),
        trans.__('Sign in again, or ask for the permission to read “shoal:clusters”.')
      ];
    case 'no-answer':
      return [
        trans.__('The Jupyter server does not answer'),
        trans.__('The panel asks again by itself, at longer and longer intervals.')
      ];
    case 'bad-answer':
      return [
        trans.__('The Jupyter server gave an answer that the panel cannot read'),
        trans.__('Its log says why. After an update of shoal, restart JupyterLab and reload this page.')
      ];
  }
}
