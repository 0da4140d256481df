import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import { ClusterCard } from '../card';
import { shoalIcon } from '../icons';
import type { ICluster } from '../model';
import { TextButton } from '../parts';
import type { IPanelSection, ISectionProps } from '../sections';
import { StartForm } from '../startForm';

/** What the cards' buttons do beyond the server; commands stand behind all of them. */
export interface IClusterActions {
  /** Put the starting cell into the notebook, or into a new one. */
  insertStart(): void;
  insertConnect(cluster: ICluster): void;
  /** Have the notebook's kernel use a cluster; null where there is no kernel to ask. */
  useInNotebook: ((cluster: ICluster) => Promise<unknown>) | null;
  /** Whether there is a notebook that a cell can be put into. */
  hasNotebook(): boolean;
  /** Whether its kernel can be asked. */
  hasKernel(): boolean;
}

export function makeClustersSection(trans: TranslationBundle, actions: IClusterActions): IPanelSection {
  return {
    id: 'clusters',
    title: trans.__('Clusters'),
    rank: 10,
    open: true,
    always: true,
    badge: ({ store }) => {
      const count = store.state.clusters.length;
      return count > 0 ? count.toLocaleString() : '';
    },
    render: props => <Clusters {...props} actions={actions} />
  };
}

function Clusters(props: ISectionProps & { actions: IClusterActions }): React.JSX.Element {
  const { store, cluster, send, trans, actions } = props;
  const { clusters, loaded, problem } = store.state;
  const [starting, setStarting] = React.useState(false);
  return (
    <>
      {loaded && !problem && clusters.length === 0 && !starting && <Empty actions={actions} trans={trans} />}
      {clusters.length > 0 && (
        <ul className="shoal-Cards" aria-label={trans.__('Clusters')} data-stale={problem !== null}>
          {clusters.map(one => (
            <ClusterCard
              key={one.id}
              cluster={one}
              shown={one.id === cluster?.id}
              alone={clusters.length === 1}
              store={store}
              send={send}
              trans={trans}
              actions={actions}
            />
          ))}
        </ul>
      )}
      {loaded && problem === null && (
        <div className="shoal-Start">
          {starting ? (
            <StartForm
              send={send}
              trans={trans}
              close={() => {
                setStarting(false);
              }}
            />
          ) : (
            <TextButton
              onClick={() => {
                setStarting(true);
              }}
            >
              {trans.__('Start a cluster…')}
            </TextButton>
          )}
        </div>
      )}
    </>
  );
}

/** Nothing runs: say what would show here, and offer the step that makes it so. */
function Empty({ actions, trans }: { actions: IClusterActions; trans: TranslationBundle }): React.JSX.Element {
  return (
    <div className="shoal-Empty">
      <shoalIcon.react tag="div" className="shoal-Empty-icon" width="48px" height="48px" />
      <p className="shoal-Empty-title">{trans.__('No cluster is running')}</p>
      <p>
        {trans.__(
          'Start one from a notebook, or with the button below. It appears here within seconds, with its nodes, tasks and actors.'
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
