import React from 'react';

import { formatBytes, formatNumber, formatPercent, formatShort, ratio } from '../format';
import { Meter } from '../meter';
import { totals } from '../model';
import { Fold, Hint, More } from '../parts';
import type { IPanelSection, ISectionProps } from '../sections';
import type { INode, IPoint, ISnapshot } from '../snapshot';
import { Sparkline } from '../sparkline';
import { TaskGrid } from '../taskGrid';
import type { TranslationBundle } from '@jupyterlab/translation';

/** Longer lists say how many more there are: the panel must stay quick with a thousand nodes. */
const MOST_NODES = 50;
/** How many nodes at most are shown without being asked for. */
const FEW_NODES = 4;

export function makeLiveSection(trans: TranslationBundle): IPanelSection {
  return {
    id: 'live',
    title: trans.__('Live'),
    rank: 20,
    open: true,
    badge: ({ cluster }) => {
      const rate = newest(cluster?.snapshot ?? null)?.tasks_per_second ?? 0;
      return rate > 0 ? trans.__('%1 tasks/s', formatShort(rate)) : '';
    },
    render: props => <Live {...props} />
  };
}

function newest(snapshot: ISnapshot | null): IPoint | undefined {
  return snapshot?.history[snapshot.history.length - 1];
}

function Live({ cluster, store, url, trans }: ISectionProps): React.JSX.Element {
  React.useEffect(() => {
    store.watchGrid();
    return () => {
      store.unwatchGrid();
    };
  }, [store]);
  const snapshot = cluster?.snapshot ?? null;
  if (cluster === null || snapshot === null) {
    return <Hint>{trans.__('The cluster has told nothing of itself yet.')}</Hint>;
  }
  const { grid } = cluster;
  return (
    <>
      <Curves snapshot={snapshot} trans={trans} />
      {snapshot.without_shoal !== true && grid !== null && grid.executors.length > 0 && <TaskGrid grid={grid} trans={trans} />}
      <Fold
        title={trans._n('%1 node', '%1 nodes', snapshot.nodes.length)}
        open={snapshot.nodes.length <= FEW_NODES}
      >
        <Nodes nodes={snapshot.nodes} trans={trans} />
      </Fold>
      {cluster.state === 'running' && snapshot.without_shoal !== true && (
        <p className="shoal-Links">
          <a href={url('clusters', cluster.id, 'analysis')} target="_blank" rel="noopener noreferrer">
            {trans.__('Analysis page')}
          </a>
          <a href={url('clusters', cluster.id, 'timeline')} download>
            {trans.__('Download timeline')}
          </a>
        </p>
      )}
    </>
  );
}

function Curves({ snapshot, trans }: { snapshot: ISnapshot; trans: TranslationBundle }): React.JSX.Element {
  const { history } = snapshot;
  const sum = totals(snapshot);
  // what Dask does not tell is left out, not nought
  const known = snapshot.without_shoal !== true;
  const of = (field: keyof IPoint): number[] => history.map(point => point[field]);
  const most = (value: string): string => trans.__('at most %1 in the last minutes', value);
  return (
    <div className="shoal-Sparks" role="group" aria-label={trans.__('The last minutes')}>
      {known && (
        <Sparkline label={trans.__('Tasks/s')} values={of('tasks_per_second')} format={formatShort} most={most} />
      )}
      <Sparkline label={trans.__('Running')} values={of('running')} format={formatShort} most={most} />
      <Sparkline label={trans.__('CPU')} values={of('cpu_ratio')} top={1} format={formatPercent} most={most} />
      <Sparkline
        label={trans.__('Memory')}
        values={of('memory_used')}
        top={sum.memory}
        format={formatBytes}
        most={most}
      />
      {known && (
        <>
          <Sparkline
            label={trans.__('Store')}
            values={of('store_used')}
            {...(sum.store > 0 ? { top: sum.store } : {})}
            format={formatBytes}
            most={most}
          />
          <Sparkline
            label={trans.__('Received')}
            values={of('received_per_second')}
            format={value => trans.__('%1/s', formatBytes(value))}
            most={most}
          />
        </>
      )}
    </div>
  );
}

function Nodes({ nodes, trans }: { nodes: readonly INode[]; trans: TranslationBundle }): React.JSX.Element {
  // what is in trouble must not be hidden behind fifty that are well
  const sorted = [...nodes].sort((a, b) => Number(a.state === 'alive') - Number(b.state === 'alive'));
  return (
    <>
      <ul className="shoal-List" aria-label={trans.__('Nodes')}>
        {sorted.slice(0, MOST_NODES).map(node => (
          <NodeRow key={node.id} node={node} trans={trans} />
        ))}
      </ul>
      <More hidden={nodes.length - MOST_NODES} trans={trans} />
    </>
  );
}

function describeNodeState(state: string, trans: TranslationBundle): string {
  switch (state) {
    case 'draining':
      return trans.__('is being drained');
    case 'suspected':
      return trans.__('does not answer');
    default:
      return '';
  }
}

function describeKind(node: INode, trans: TranslationBundle): string {
  return node.executors === null
    ? trans.__('Dask worker')
    : trans._n('%1 executor', '%1 executors', node.executors);
}

const NodeRow = React.memo(function NodeRow({ node, trans }: { node: INode; trans: TranslationBundle }) {
  const trouble = describeNodeState(node.state, trans);
  return (
    <li className="shoal-Node" data-state={node.state}>
      <div className="shoal-Row">
        <span className="shoal-Row-name" title={node.id}>
          {node.host}
        </span>
        <span className="shoal-Row-note">
          {trouble ? `⚠ ${trouble}` : describeKind(node, trans)}
        </span>
      </div>
      <Meter
        label={trans.__('CPU')}
        value={ratio(node.cpu_ratio, 1)}
        warn={false}
        text={
          node.executors === null
            ? trans.__('%1 of %2 threads busy', formatNumber(node.cpus_used), formatNumber(node.cpus))
            : trans.__('%1 of %2 CPUs granted', formatNumber(node.cpus_used), formatNumber(node.cpus))
        }
      />
      <Meter
        label={trans.__('Memory')}
        value={ratio(node.memory_used, node.memory)}
        warn={true}
        text={trans.__('%1 of %2', formatBytes(node.memory_used), formatBytes(node.memory))}
      />
      {node.store > 0 && (
        <Meter
          label={trans.__('Store')}
          value={ratio(node.store_used, node.store)}
          warn={true}
          text={
            node.spilled > 0
              ? trans.__(
                  '%1 of %2, %3 on disk',
                  formatBytes(node.store_used),
                  formatBytes(node.store),
                  formatBytes(node.spilled)
                )
              : trans.__('%1 of %2', formatBytes(node.store_used), formatBytes(node.store))
          }
        />
      )}
      {node.gpus.map((gpu, index) => (
        <Meter
          key={index}
          label={trans.__('GPU %1', index)}
          value={ratio(gpu.ratio, 1)}
          warn={false}
          text={trans.__('%1, %2 of %3', gpu.name, formatBytes(gpu.memory_used), formatBytes(gpu.memory))}
        />
      ))}
    </li>
  );
});
